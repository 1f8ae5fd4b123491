"""The published numbers beside ours: planned runs, claims as paired comparisons, and the page that is made of both."""
