"""Finding stored decisions: reading a text, filters, facets, one app's day, exports."""
