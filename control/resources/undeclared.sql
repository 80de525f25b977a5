DROP TRIGGER file_fixed ON control_appliedfile;
DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY['control_installation', 'control_appliedfile'] LOOP
    EXECUTE format('DROP TRIGGER insert_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER update_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER no_truncate ON %I', held);
    EXECUTE format('DROP TRIGGER stays ON %I', held);
  END LOOP;
END $$;
