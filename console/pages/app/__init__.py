"""The page of one app."""
