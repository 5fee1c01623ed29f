"""The procedural world of coloured shapes: scenes, captions, renderer, oracle, and the recipe of its models."""
