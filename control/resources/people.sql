-- People and their roles change only with an entry in the audit log, as other tables do (audited.sql). Two things of a person change
-- without one, as Django writes them at sign-in: the time of the last sign-in, and the digest of a password that is hashed anew.
-- It runs as the owner, as the other triggers that leave notes do (confined.sql).
CREATE FUNCTION control_note_person() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF EXISTS (
    SELECT to_jsonb(n) - 'last_login' - 'password' FROM new_rows n
    EXCEPT SELECT to_jsonb(o) - 'last_login' - 'password' FROM old_rows o
  ) THEN
    PERFORM control_note_change('a row that was changed in ' || TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION control_note_person() FROM PUBLIC;

-- A grant keeps who gave what; only its end is filled in, once.
CREATE FUNCTION control_grant_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.taken_at IS NOT NULL
    OR to_jsonb(NEW) - 'taken_at' - 'taken_by' - 'taken_login' <> to_jsonb(OLD) - 'taken_at' - 'taken_by' - 'taken_login'
  THEN
    RAISE EXCEPTION 'grant % is fixed', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER grant_fixed BEFORE UPDATE ON control_grant FOR EACH ROW EXECUTE FUNCTION control_grant_fixed();
CREATE TRIGGER grant_stays BEFORE DELETE ON control_grant FOR EACH ROW EXECUTE FUNCTION control_refuse();

DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY['auth_user', 'auth_user_groups', 'auth_user_user_permissions', 'control_grant'] LOOP
    EXECUTE format('CREATE TRIGGER insert_is_audited AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_insert()', held);
    EXECUTE format('CREATE TRIGGER update_is_audited AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION %I()',
      held, CASE held WHEN 'auth_user' THEN 'control_note_person' ELSE 'control_note_update' END);
    EXECUTE format('CREATE TRIGGER delete_is_audited AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_delete()', held);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION control_refuse()', held);
  END LOOP;
END $$;
