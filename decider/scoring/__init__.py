"""Scores of a request: LightGBM models read, checked, evaluated and explained."""
