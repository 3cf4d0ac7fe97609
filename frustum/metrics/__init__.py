"""Evaluation as integer counts: add(), merge(), compute(); exact under any split of the data."""
