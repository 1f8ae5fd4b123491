"""From what models said of held-out lesions to figures, images and one page."""
