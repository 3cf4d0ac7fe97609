"""Image encoders, one file per backbone family, with upstream key names."""
