"""Seeded CT phantoms with known lesions: the demo, the tests and the benchmarks share them."""
