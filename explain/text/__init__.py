"""Sentences about a decision, for colleagues and for customers."""
