"""What is done with a finished run: pictures of any prompt, its LoRA for other programs, its page on the hub."""
