DROP TRIGGER dispute_fixed ON decisions_dispute;
DROP TRIGGER outcome_fixed ON decisions_outcome;
DROP FUNCTION decisions_dispute_fixed();
DROP FUNCTION decisions_outcome_fixed();
