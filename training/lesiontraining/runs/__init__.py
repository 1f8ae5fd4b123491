"""A run on disk, its networks asked again, and what is fitted on their answers."""
