"""GLP, PAN's world model: encode, predict in latent space, generate."""
