"""What people look at: the result table, grids of pairs, attention overlays, the report, the model card."""
