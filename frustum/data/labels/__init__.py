"""One file per kind of label."""
