"""Dense temporal captions: what moves, what changes, when."""
