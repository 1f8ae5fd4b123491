"""The names of Slicer's scripting interface that the modules and the stand-ins use, and a check of code against them."""
