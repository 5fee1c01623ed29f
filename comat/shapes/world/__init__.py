"""The shapes world itself: scenes, renderer, captions, corpora and oracle. It needs nothing of the rest."""
