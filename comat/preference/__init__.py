"""The user preference study (App. B.1): blind pairs on one page, and what the votes say."""
