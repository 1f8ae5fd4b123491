"""Search in a library: what may answer, the exact way, and the one for large libraries."""
