"""Recipes, one file per method: functions that return a complete Recipe."""
