"""Decisions made again: replays of stored records and what other behaviour would change."""
