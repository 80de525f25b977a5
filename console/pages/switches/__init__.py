"""The page of kill switches: flips, their preview, and their propagation."""
