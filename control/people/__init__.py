"""Who may sign in and what each may do: people, grants of roles, and the access review."""
