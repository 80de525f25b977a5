"""Real access logs: reading them and playing them back."""
