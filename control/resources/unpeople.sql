-- Django's tables of people are as Django made them again. The table of grants goes with its own triggers.
DO $$
DECLARE
  held text;
BEGIN
  FOREACH held IN ARRAY ARRAY['auth_user', 'auth_user_groups', 'auth_user_user_permissions', 'control_grant'] LOOP
    EXECUTE format('DROP TRIGGER insert_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER update_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER delete_is_audited ON %I', held);
    EXECUTE format('DROP TRIGGER no_truncate ON %I', held);
  END LOOP;
END $$;

DROP TRIGGER grant_fixed ON control_grant;
DROP TRIGGER grant_stays ON control_grant;
DROP FUNCTION control_grant_fixed();
DROP FUNCTION control_note_person();
