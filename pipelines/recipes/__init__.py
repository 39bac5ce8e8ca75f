"""The packaged recipes: TOML files that list only what differs from the defaults."""
