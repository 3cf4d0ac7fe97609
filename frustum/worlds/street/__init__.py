"""The street world: a seeded procedural city filmed by a camera rig and a LiDAR."""
