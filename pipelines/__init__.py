"""The commands: each tells its whole story on one screen."""
