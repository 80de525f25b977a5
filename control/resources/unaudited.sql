-- Entries are appended again by the function of before, which knows no transaction.
DROP TRIGGER tenant_is_audited ON control_tenant;
DROP TRIGGER app_is_audited ON control_app;
DROP TRIGGER app_change_is_audited ON control_app;
DROP TRIGGER flip_is_audited ON control_switchflip;
DROP TRIGGER note_is_audited ON control_appnote;
DROP TRIGGER outcome_is_audited ON decisions_outcome;
DROP TRIGGER dispute_is_audited ON decisions_dispute;
DROP TRIGGER model_is_audited ON rollouts_modelversion;
DROP TRIGGER token_is_audited ON knox_authtoken;
DROP TRIGGER token_end_is_audited ON knox_authtoken;
DROP TRIGGER tenant_no_truncate ON control_tenant;
DROP TRIGGER app_no_truncate ON control_app;
DROP TRIGGER flip_no_truncate ON control_switchflip;
DROP TRIGGER outcome_no_truncate ON decisions_outcome;
DROP TRIGGER dispute_no_truncate ON decisions_dispute;
DROP TRIGGER model_no_truncate ON rollouts_modelversion;
DROP FUNCTION control_is_audited();
ALTER TABLE control_auditentry DROP COLUMN xact;
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
    INSERT INTO control_auditentry SELECT entry.*;
    RETURN QUERY SELECT entry.seq, entry.prev_hash::text, entry.hash::text;
  END LOOP;
END $$;
