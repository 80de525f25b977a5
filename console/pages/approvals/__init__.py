"""Changes that need a second person: what waits, and deciding it."""
