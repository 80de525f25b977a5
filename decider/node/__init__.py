"""One decider process: its config, its exchange with the store, its commands and feedback."""
