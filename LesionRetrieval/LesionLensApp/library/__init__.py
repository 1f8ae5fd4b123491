"""``lesionlens library``: what is done to case libraries, and the first one of computed nodules."""
