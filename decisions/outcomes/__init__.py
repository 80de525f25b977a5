"""What happened later: reports, their CSV form, disputes of refusals."""
