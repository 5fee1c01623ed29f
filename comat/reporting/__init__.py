"""What people look at: the result table, grids of pairs, attention overlays."""
