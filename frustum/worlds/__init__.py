"""Generators of data that is exact by construction."""
