"""The decider's HTTP server: connections, checks, the JSON API and their responses."""
