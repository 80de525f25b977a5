"""Outcomes: uploading and reporting what happened later."""
