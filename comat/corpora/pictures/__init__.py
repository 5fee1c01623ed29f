"""Real images with captions, in the layouts that people have: which there are, and the pixels of each."""
