-- The audit log can only be appended to, and only at the end of its chain.
CREATE FUNCTION control_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION control_continue_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  last record;
BEGIN
  SELECT seq, hash INTO last FROM control_auditentry ORDER BY seq DESC LIMIT 1;
  IF NEW.seq <> COALESCE(last.seq, 0) + 1 OR NEW.prev_hash <> COALESCE(last.hash, repeat('0', 64)) THEN
    RAISE EXCEPTION 'audit entry % does not continue the chain', NEW.seq USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON control_auditentry
  FOR EACH ROW EXECUTE FUNCTION control_refuse();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON control_auditentry
  FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
CREATE TRIGGER audit_continues BEFORE INSERT ON control_auditentry
  FOR EACH ROW EXECUTE FUNCTION control_continue_chain();

-- A config version is never rewritten or removed; only the time it was published is filled in.
CREATE FUNCTION control_version_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  OLD.published_at := NEW.published_at;
  IF NEW IS DISTINCT FROM OLD THEN
    RAISE EXCEPTION 'config version % is fixed', OLD.version USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER version_fixed BEFORE UPDATE ON control_configversion
  FOR EACH ROW EXECUTE FUNCTION control_version_fixed();
CREATE TRIGGER version_stays BEFORE DELETE ON control_configversion
  FOR EACH ROW EXECUTE FUNCTION control_refuse();
CREATE TRIGGER version_no_truncate BEFORE TRUNCATE ON control_configversion
  FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();

-- At commit a config version has its audit row. The row refers to the version, so neither can be there without the other:
-- they were written in one transaction.
CREATE FUNCTION control_version_is_audited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM control_auditentry WHERE config_version = NEW.version) THEN
    RAISE EXCEPTION 'config version % has no audit row', NEW.version USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER version_is_audited AFTER INSERT ON control_configversion
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_version_is_audited();
