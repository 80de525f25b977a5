DROP TRIGGER version_is_approved ON control_configversion;
DROP FUNCTION control_version_is_approved();
DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY['approvals_request', 'approvals_vote', 'approvals_mode', 'approvals_review'] LOOP
    EXECUTE format('DROP TRIGGER insert_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER update_is_audited ON %I', held);
  END LOOP;
END $$;
