-- At commit, a config version whose change needed a second person has one of three: the applied request for exactly this change, the
-- mark that it was made in single-person mode while that was the mode, or the review that waits for a second person. Whether the
-- change needed one only its document says; `manage.py audit verify` reads that.
CREATE FUNCTION control_version_is_approved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.loosens IS NULL THEN
    RAISE EXCEPTION 'config version % does not say whether it needs a second person', NEW.version USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.request_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM approvals_request r WHERE r.id = NEW.request_id AND r.state = 'applied' AND r.digest = NEW.change
  ) THEN
    RAISE EXCEPTION 'the request of config version % is not applied, or for another change', NEW.version USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.review_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM approvals_review r WHERE r.id = NEW.review_id AND r.digest = NEW.change
  ) THEN
    RAISE EXCEPTION 'the review of config version % is of another change', NEW.version USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.alone AND COALESCE((SELECT m."on" FROM approvals_mode m ORDER BY m.id DESC LIMIT 1), false) THEN
    RAISE EXCEPTION 'four eyes is on, so config version % cannot be made by one person', NEW.version USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.loosens AND NOT NEW.alone AND NEW.request_id IS NULL AND NEW.review_id IS NULL THEN
    RAISE EXCEPTION 'config version % needs a second person', NEW.version USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER version_is_approved AFTER INSERT ON control_configversion
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_version_is_approved();

-- What is asked and voted has its entry in the audit log, as every change of people has.
DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY['approvals_request', 'approvals_vote', 'approvals_mode', 'approvals_review'] LOOP
    EXECUTE format('CREATE TRIGGER insert_is_audited AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_insert()', held);
    EXECUTE format('CREATE TRIGGER update_is_audited AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_update()', held);
  END LOOP;
END $$;
