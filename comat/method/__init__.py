"""The method of the paper: its four parts, replay, and the training step, Algorithm 1."""
