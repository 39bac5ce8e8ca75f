"""The data of training: shards of clips or of latents to windows and dialogues, in an order that seed and epoch decide."""
