"""The decision itself: counters of apps, services and tenants, and the passes over a batch."""
