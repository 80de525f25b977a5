"""How figures look: numbers, durations and charts, one of each."""
