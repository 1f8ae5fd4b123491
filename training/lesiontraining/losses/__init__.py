"""The losses of the five systems, each in its own file."""
