-- Nothing changes without an entry in the audit log: each statement that changes a table in which people decide leaves a note, and at
-- commit each note is held to an entry of the same transaction. A note for each row would hold the log's lock for as long as a large
-- report has rows.
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

-- What the open transactions changed. Each row is gone again before anybody else could see it; its trigger fires all the same.
CREATE TABLE control_change (what text NOT NULL);

-- Appenders hold a lock until they commit, so the newest entry is this transaction's own, if it has any.
CREATE FUNCTION control_is_audited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT a.xact FROM control_auditentry a ORDER BY a.seq DESC LIMIT 1) IS DISTINCT FROM pg_current_xact_id() THEN
    RAISE EXCEPTION '% has no entry in the audit log', NEW.what USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER change_is_audited AFTER INSERT ON control_change
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_is_audited();

CREATE FUNCTION control_note_change(said text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  place tid;
BEGIN
  INSERT INTO control_change (what) VALUES (said) RETURNING ctid INTO place;
  DELETE FROM control_change WHERE ctid = place;
END $$;

CREATE FUNCTION control_note_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM new_rows) THEN
    PERFORM control_note_change('a row that was added to ' || TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END $$;

-- "found_wrong" of an app counts verdicts, each of which has its entry.
CREATE FUNCTION control_note_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
    SELECT to_jsonb(n) - 'found_wrong' FROM new_rows n EXCEPT SELECT to_jsonb(o) - 'found_wrong' FROM old_rows o
  ) THEN
    PERFORM control_note_change('a row that was changed in ' || TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION control_note_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM old_rows) THEN
    PERFORM control_note_change('a row that was deleted from ' || TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END $$;

-- A token that has ended is cleared away without anybody's doing.
CREATE FUNCTION control_note_token_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM old_rows WHERE expiry IS NULL OR expiry > now()) THEN
    PERFORM control_note_change('a row that was deleted from ' || TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END $$;

DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY[
    'control_tenant', 'control_app', 'control_switchflip', 'control_appnote', 'decisions_outcome', 'decisions_dispute',
    'rollouts_modelversion'
  ] LOOP
    EXECUTE format('CREATE TRIGGER insert_is_audited AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_insert()', held);
    EXECUTE format('CREATE TRIGGER update_is_audited AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_update()', held);
    EXECUTE format('CREATE TRIGGER delete_is_audited AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_delete()', held);
    -- emptying a table leaves no note
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION control_refuse()', held);
  END LOOP;
END $$;

CREATE TRIGGER insert_is_audited AFTER INSERT ON knox_authtoken REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION control_note_insert();
CREATE TRIGGER delete_is_audited AFTER DELETE ON knox_authtoken REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION control_note_token_end();
