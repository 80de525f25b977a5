"""A service's page: who asks for how much of it, and who pays while it is short of room."""
