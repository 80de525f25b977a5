"""What the gateway itself holds to while no decider answers: block and compliance rules."""
