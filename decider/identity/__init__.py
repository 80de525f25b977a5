"""Who is asking: the app that a credential names, verified before it is believed."""
