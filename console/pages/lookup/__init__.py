"""Lookup: from any pasted text to the decisions it means."""
