"""API tokens of the person signed in."""
