"""People and roles: who may do what, the access review, and the link to choose a password."""
