"""The traffic simulator: a world of apps and services, and the load they make."""
