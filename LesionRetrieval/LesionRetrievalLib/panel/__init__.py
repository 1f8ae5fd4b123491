"""The panel of Lesion Retrieval: Qt widgets that show the scene and the library and call the logic."""
