"""What a decider remembers of apps and of addresses, in flat arrays."""
