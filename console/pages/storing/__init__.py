"""What becomes of sampled decisions on their way into the database, and what of the disk."""
