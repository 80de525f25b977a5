-- Nothing changes without an entry in the audit log: at commit, each change of a table that people decide in is held to an entry of
-- the same transaction. Appenders hold a lock until they commit, so the newest entry is this transaction's own, if it has any.
ALTER TABLE control_auditentry ADD COLUMN xact xid8 NOT NULL DEFAULT pg_current_xact_id();

-- Appends entries to the audit log. Numbers and hashes are made here, under a lock that is held from here to the commit: a change
-- appends last (control.audit.chain), so others wait for milliseconds, whatever the change did before.
-- Each item: "entry", the columns but seq and hashes; "rest", the text that is hashed behind the hash before and the number.
CREATE OR REPLACE FUNCTION control_append_entries(said jsonb)
RETURNS TABLE (seq bigint, prev_hash text, hash text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  item jsonb;
  entry control_auditentry;
  last_seq bigint;
  last_hash text;
BEGIN
  -- "SLUC" in ASCII, as versions of before took it
  PERFORM pg_advisory_xact_lock(x'534C5543'::bigint);
  SELECT a.seq, a.hash INTO last_seq, last_hash FROM control_auditentry a ORDER BY a.seq DESC LIMIT 1;
  last_seq := COALESCE(last_seq, 0);
  last_hash := COALESCE(last_hash, repeat('0', 64));
  FOR item IN SELECT value FROM jsonb_array_elements(said) LOOP
    entry := jsonb_populate_record(NULL::control_auditentry, item -> 'entry');
    entry.prev_hash := last_hash;
    last_seq := last_seq + 1;
    last_hash := encode(
      sha256(convert_to('["' || last_hash || '",' || last_seq || ',' || (item ->> 'rest'), 'UTF8')), 'hex'
    );
    entry.seq := last_seq;
    entry.hash := last_hash;
    entry.xact := pg_current_xact_id();
    INSERT INTO control_auditentry SELECT entry.*;
    RETURN QUERY SELECT entry.seq, entry.prev_hash::text, entry.hash::text;
  END LOOP;
END $$;

CREATE FUNCTION control_is_audited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT a.xact FROM control_auditentry a ORDER BY a.seq DESC LIMIT 1) IS DISTINCT FROM pg_current_xact_id() THEN
    RAISE EXCEPTION '% of % has no entry in the audit log', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER tenant_is_audited AFTER INSERT OR UPDATE OR DELETE ON control_tenant
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
CREATE CONSTRAINT TRIGGER app_is_audited AFTER INSERT OR DELETE ON control_app
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
-- found_wrong is a count of verdicts, each of which has its entry
CREATE CONSTRAINT TRIGGER app_change_is_audited AFTER UPDATE ON control_app
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN ((to_jsonb(OLD) - 'found_wrong') IS DISTINCT FROM (to_jsonb(NEW) - 'found_wrong'))
  EXECUTE FUNCTION control_is_audited();
CREATE CONSTRAINT TRIGGER flip_is_audited AFTER INSERT OR UPDATE OR DELETE ON control_switchflip
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
CREATE CONSTRAINT TRIGGER note_is_audited AFTER INSERT OR UPDATE OR DELETE ON control_appnote
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
CREATE CONSTRAINT TRIGGER outcome_is_audited AFTER INSERT OR UPDATE OR DELETE ON decisions_outcome
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
CREATE CONSTRAINT TRIGGER dispute_is_audited AFTER INSERT OR UPDATE OR DELETE ON decisions_dispute
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
CREATE CONSTRAINT TRIGGER model_is_audited AFTER INSERT OR UPDATE OR DELETE ON rollouts_modelversion
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
CREATE CONSTRAINT TRIGGER token_is_audited AFTER INSERT ON knox_authtoken
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();
-- what has ended is cleared away without anybody's doing
CREATE CONSTRAINT TRIGGER token_end_is_audited AFTER DELETE ON knox_authtoken
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.expiry > now()) EXECUTE FUNCTION control_is_audited();

-- Emptying a table fires no trigger of its rows.
CREATE TRIGGER tenant_no_truncate BEFORE TRUNCATE ON control_tenant FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
CREATE TRIGGER app_no_truncate BEFORE TRUNCATE ON control_app FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
CREATE TRIGGER flip_no_truncate BEFORE TRUNCATE ON control_switchflip FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
CREATE TRIGGER outcome_no_truncate BEFORE TRUNCATE ON decisions_outcome FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
CREATE TRIGGER dispute_no_truncate BEFORE TRUNCATE ON decisions_dispute FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
CREATE TRIGGER model_no_truncate BEFORE TRUNCATE ON rollouts_modelversion FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
