DROP TRIGGER outcome_has_dispute ON decisions_outcome;
DROP FUNCTION decisions_outcome_has_dispute();
