"""Disputes of refusals, opened by one person and decided by another."""
