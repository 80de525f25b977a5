"""Receipts that customers send in."""
