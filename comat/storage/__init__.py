"""Files that are written whole and checked when read: tables, tensors, JSON, images, texts of prompts."""
