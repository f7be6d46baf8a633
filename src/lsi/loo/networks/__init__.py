"""Many copies of one network at a time: stacked weights, their training, their posteriors."""
