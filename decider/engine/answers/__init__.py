"""What a refused or admitted client is told: its RateLimit figures, its wait, and its place."""
