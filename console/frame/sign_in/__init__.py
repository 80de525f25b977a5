"""Signing in: by password, and again before what a stolen session must not do."""
