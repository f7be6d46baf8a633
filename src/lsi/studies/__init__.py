"""Questions that are answered by scoring, or training, again and again."""
