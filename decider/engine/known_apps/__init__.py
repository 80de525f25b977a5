"""The table of known apps, and how the engine holds it."""
