"""The parts of the decider that other packages import: features, config document, event, names."""
