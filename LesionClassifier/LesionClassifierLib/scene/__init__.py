"""MRML in, MRML out, the border to LesionLib: volumes, lesions, results, heat maps, the tree; knows no Qt.

Every function takes the scene or the node it works on; none looks for a global one, so all of it works in Slicer and
without it. Coordinates are world RAS mm: linear parent transforms are applied on the way in, non-linear ones refused.
"""
