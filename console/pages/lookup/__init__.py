"""Lookup: finding the decisions that a pasted text refers to."""
