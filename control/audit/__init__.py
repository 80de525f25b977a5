"""Who did what: the hash-chained audit log, data-access looks, actors and tokens."""
