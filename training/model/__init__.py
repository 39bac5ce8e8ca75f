"""PAN's networks: a model knows nothing of clusters."""
