"""The kill switch, its preview and its propagation."""
