"""Finds, cuts, decodes once, judges and shards a clip: the data's way from raw video to training sample."""

__version__ = "0.1.0"
