"""What surrounds every page: layout, status strip, sign-in, sessions, roles and errors."""
