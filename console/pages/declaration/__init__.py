"""The file that declares an installation."""
