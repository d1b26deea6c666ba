"""Who runs things."""
