"""Occupancy label and result files as in Occ3D."""
