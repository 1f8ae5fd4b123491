"""What a training step sees: pictures drawn epoch by epoch, alone, in pairs, in triplets or as two views."""
