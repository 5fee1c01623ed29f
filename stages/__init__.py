"""The pipeline's stages, one thin script each: read, call `comat`, write."""
