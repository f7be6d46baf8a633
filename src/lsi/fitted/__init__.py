"""A trained probe that is asked many questions: what rows, groups and new data mean to it."""
