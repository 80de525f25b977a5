"""Training, evaluating and checking models."""
