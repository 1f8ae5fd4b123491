"""The panel of Lesion Classifier: Qt widgets that show the scene and call the logic."""
