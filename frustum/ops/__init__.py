"""Kernels: each a readable torch reference plus fast backends held equal to it by tests."""
