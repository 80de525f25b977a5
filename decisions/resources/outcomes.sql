-- Reported outcomes and decided disputes are never rewritten.
CREATE FUNCTION decisions_outcome_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'outcome % is fixed', OLD.key USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER outcome_fixed BEFORE UPDATE ON decisions_outcome
  FOR EACH ROW EXECUTE FUNCTION decisions_outcome_fixed();

CREATE FUNCTION decisions_dispute_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR OLD.state <> 'open' THEN
    RAISE EXCEPTION 'dispute % is fixed', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER dispute_fixed BEFORE UPDATE OR DELETE ON decisions_dispute
  FOR EACH ROW EXECUTE FUNCTION decisions_dispute_fixed();
