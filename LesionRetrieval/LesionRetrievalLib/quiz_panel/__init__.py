"""The teaching room's panels: learner, teacher, score."""
