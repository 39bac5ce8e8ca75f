"""What a trained model is worth: the block world whose truth its pixels tell, and measures of films."""
