"""MRML in, MRML out: volumes, lesions, results, heat maps, the tree; knows no Qt."""
