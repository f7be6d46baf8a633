"""Changes of the data other than leaving one sample out: rows that leave, join or change their label."""
