"""Measurements: speed and the claims of papers."""
