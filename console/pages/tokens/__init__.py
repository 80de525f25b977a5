"""The API tokens of the signed-in person."""
