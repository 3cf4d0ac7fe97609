"""The world of heads: seeded procedural talking heads with exact parsing, landmarks, mattes and head swaps."""
