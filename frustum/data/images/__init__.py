"""Two-dimensional segmentation sets."""
