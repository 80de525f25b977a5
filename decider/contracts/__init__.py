"""What other rooms import of the decider: features, config document, decision event, names."""
