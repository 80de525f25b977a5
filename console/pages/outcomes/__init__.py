"""Outcomes: what happened later, uploaded or reported."""
