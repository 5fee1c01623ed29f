"""The images that are evaluated: which prompts, drawn by the base, the tuned model and peers."""
