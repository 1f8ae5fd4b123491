"""Pages with slices of a CT: NiiVue, the viewer on it, and the quiz in one file."""
