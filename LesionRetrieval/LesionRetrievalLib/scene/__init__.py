"""Cases, comparisons, annotations and quiz cases as MRML nodes and slice views; knows no Qt."""
