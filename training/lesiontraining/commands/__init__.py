"""The commands of lesiontrain: fit, evaluate, export, index, retrieval, probe."""
