"""A decision beside others: other configs and models, limits, peers, its minute."""
