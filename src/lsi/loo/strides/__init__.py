"""Left-out heads trained in strides of many epochs, exact in the momentum, around the full-data head."""
