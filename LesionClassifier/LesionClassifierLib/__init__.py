"""The Slicer side of the backend: MRML nodes in, MRML nodes out; also a real scene without the application."""
