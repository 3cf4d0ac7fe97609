"""KITTI raw drives into the one format."""
