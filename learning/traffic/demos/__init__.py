"""What the demo shows on request: traffic against the running gateway, to be watched on pages."""
