"""Official checkpoints: one key map per upstream project."""
