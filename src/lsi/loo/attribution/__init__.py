"""What left-out samples do to a model's answers elsewhere: to validation losses and single predictions."""
