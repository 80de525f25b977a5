-- A file that was applied is kept as it was; what it said is a change like any other, with its entry in the audit log.
DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY['control_installation', 'control_appliedfile'] LOOP
    EXECUTE format('CREATE TRIGGER insert_is_audited AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_insert()', held);
    EXECUTE format('CREATE TRIGGER update_is_audited AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
      ' FOR EACH STATEMENT EXECUTE FUNCTION control_note_update()', held);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION control_refuse()', held);
    EXECUTE format('CREATE TRIGGER stays BEFORE DELETE ON %I FOR EACH ROW EXECUTE FUNCTION control_refuse()', held);
  END LOOP;
END $$;

CREATE TRIGGER file_fixed BEFORE UPDATE ON control_appliedfile FOR EACH ROW EXECUTE FUNCTION control_refuse();
