"""Changes on purpose, of labels, targets and items, with the truth kept beside them."""
