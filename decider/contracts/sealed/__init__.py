"""Messages that prove by an authentication code that they come from a process of this fleet."""
