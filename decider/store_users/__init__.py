"""Users of the store, one for each role: what each may do there, and which of them a process is."""
