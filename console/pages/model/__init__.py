"""The page about which features a model uses, and how."""
