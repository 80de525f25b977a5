-- Entries are appended again by the function of before, which knows no transaction.
DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY[
    'control_tenant', 'control_app', 'control_switchflip', 'control_appnote', 'decisions_outcome', 'decisions_dispute',
    'rollouts_modelversion'
  ] LOOP
    EXECUTE format('DROP TRIGGER insert_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER update_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER delete_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER no_truncate ON %I', held);
  END LOOP;
END $$;

DROP TRIGGER insert_is_audited ON knox_authtoken;
DROP TRIGGER delete_is_audited ON knox_authtoken;
DROP TABLE control_change;
DROP FUNCTION control_note_token_end();
DROP FUNCTION control_note_delete();
DROP FUNCTION control_note_update();
DROP FUNCTION control_note_insert();
DROP FUNCTION control_note_change(text);
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
