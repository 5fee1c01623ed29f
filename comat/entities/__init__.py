"""Entities: a prompt's nouns with their attributes, which of them to keep, and where their tokens are."""
