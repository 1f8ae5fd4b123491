"""How the shipped lung nodule model is made: a frozen network, a linear head, its figures and its card."""
