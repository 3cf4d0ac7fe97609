"""Recipes, overrides, the training and evaluation loops, checkpoints."""
