"""The linear softmax probe: model, mathematics, and how it is fitted."""
