"""Reader and writers of the nuScenes table format."""
