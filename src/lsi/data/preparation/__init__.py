"""Tables of mixed columns → features: numbers, categories and dates, by rules that see the data only."""
