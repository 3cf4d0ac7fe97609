"""Portraits: photographs of people's heads, by person and clip, with the parts of the face."""
