"""What goes to the deciders and comes back: publishing, acks, profiles, buckets, keys."""
