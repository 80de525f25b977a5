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
DROP FUNCTION control_append_entries(jsonb);
