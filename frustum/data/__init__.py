"""Samples in, batches out: readers and writers of the public formats (docs/data.md)."""
