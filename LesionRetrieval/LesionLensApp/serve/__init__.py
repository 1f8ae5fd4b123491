"""``lesionlens serve``: the lesion page in a browser, and the models of this computer for Slicer on another one."""
