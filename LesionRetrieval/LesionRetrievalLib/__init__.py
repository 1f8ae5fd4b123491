"""Similar cases and the teaching quiz: the library of known lesions and what is made of it, without and with Slicer."""
