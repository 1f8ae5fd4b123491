"""How good a model is and how sure one may be of it: figures, intervals, comparisons, subgroups and leak checks.

Everything here works on arrays with one row a lesion (truth, answer, patient), knows no network and needs numpy, scipy
and scikit-learn only. What the papers meant by their columns is in `paper_readings`.
"""
