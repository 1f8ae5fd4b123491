"""LesionLens without Slicer: the command line, the report and the pictures in it."""
