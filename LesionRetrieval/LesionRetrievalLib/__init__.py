"""Similar cases: the library of known lesions and what is made of it."""
