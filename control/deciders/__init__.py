"""What is sent to the deciders and what they answer: publishing, acks, profiles, buckets, keys."""
