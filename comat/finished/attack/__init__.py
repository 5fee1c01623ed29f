"""The prompt attack of Table 6: words that, put behind a prompt, break its image."""
