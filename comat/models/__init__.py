"""The models that the parameters name: which of their files are used, where they lie, and what exactly they are."""
