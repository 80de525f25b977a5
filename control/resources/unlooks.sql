-- Looks cannot go back into the audit log. While there are any, an older version must not run on this database.
DO $$ BEGIN
  IF EXISTS (SELECT FROM control_look) THEN
    RAISE EXCEPTION 'the data-access log has looks, which an older version would not show';
  END IF;
END $$;
DROP FUNCTION control_append_looks(text[], text[], text, text, text, text, interval, timestamptz);
DROP FUNCTION control_make_look_month(timestamptz);
DROP TABLE control_look CASCADE;
DROP FUNCTION control_continue_looks();
DROP FUNCTION control_look_end();
DROP INDEX audit_checkpoints;
