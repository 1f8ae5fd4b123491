"""From what models said of held-out lesions to figures, pictures and one page."""
