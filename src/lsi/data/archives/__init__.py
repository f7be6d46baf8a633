"""Published datasets: their archives fetched, checked and read."""
