"""How far an answer can be relied on: prediction sets, likeness to training, stability against box jitter."""
