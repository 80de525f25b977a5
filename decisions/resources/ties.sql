-- A verdict is stored in the transaction that decides its dispute, and says the same as it.
-- Checked when the transaction ends: the dispute names its outcome, so the outcome is stored first.
CREATE FUNCTION decisions_outcome_has_dispute() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (
    SELECT 1 FROM decisions_dispute d
    WHERE d.outcome_id = NEW.id AND d.decision = NEW.decision AND d.app = NEW.app
      AND d.weight = NEW.weight
      AND (d.state, NEW.kind) IN (('upheld', 'false_throttle'), ('declined', 'correct_refusal'))
  ) THEN
    RAISE EXCEPTION 'outcome % is no verdict of a dispute', NEW.key USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER outcome_has_dispute AFTER INSERT ON decisions_outcome
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.source = 'dispute' OR NEW.kind IN ('false_throttle', 'correct_refusal'))
  EXECUTE FUNCTION decisions_outcome_has_dispute();

-- Outcomes that are stored already: those with an app keep it, the others are tried again for the
-- days that are left to them (30 after they were stored).
INSERT INTO decisions_outcometie
  (outcome_id, app, decision, state, how, occurred_at, since, tries, next_at)
SELECT id, app, decision, CASE WHEN app = '' THEN 'unknown' ELSE 'tied' END,
  CASE WHEN app = '' THEN '' ELSE 'earlier' END, occurred_at, stored_at, 1,
  CASE WHEN app = '' AND stored_at > now() - interval '30 days' THEN now() END
FROM decisions_outcome;
