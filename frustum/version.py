"""The version of the package, and the name by which others join it, where every other module can import them."""

__version__ = "0.1.0"

ENTRY_POINTS = "frustum.recipes"
"""The group of entry points by which an installed package joins."""
