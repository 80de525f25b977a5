"""Tenants and apps, and the notes people keep about them."""
