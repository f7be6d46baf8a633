"""Changes on purpose, of labels, targets and items, and the truth about them."""
