"""The page of one decision: why it was made."""
