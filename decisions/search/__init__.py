"""Finding stored decisions: look-up of a typed text, filters, facets, one app's day, exports."""
