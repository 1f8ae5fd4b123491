"""Why this answer: Grad-CAM and similarity maps, resampled into the CT, and where they lie."""
