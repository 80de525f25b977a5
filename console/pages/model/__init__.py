"""What a model uses, feature by feature."""
