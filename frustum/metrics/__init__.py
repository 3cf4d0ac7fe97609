"""Metrics as count states: add(), merge(), compute()."""
