"""A user's own lists and images: shown before anything is written, and taken into the project."""
