"""Prompt corpora: what is published where, readers of its formats, and the corpus that is built from them."""
