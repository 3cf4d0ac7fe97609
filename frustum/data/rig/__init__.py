"""Your own cameras into the one format."""
