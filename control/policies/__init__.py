"""Which limits apply to an app, and where each comes from."""
