"""From a CT and a box to what a network gets, and the way back."""
