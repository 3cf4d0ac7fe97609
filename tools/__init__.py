"""Scripts that are run from a checkout."""
