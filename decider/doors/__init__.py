"""A decider's doors: where it listens, and what those who ask there must know."""
