"""Official checkpoints: what is published where, and one key map per upstream project."""
