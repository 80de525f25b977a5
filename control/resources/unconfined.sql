DROP FUNCTION control_drop_look_month(timestamptz);
DROP FUNCTION control_drop_strays(text, date);
DROP FUNCTION control_drop_day(text, date, text);
DROP FUNCTION control_make_day(text, date);
DROP FUNCTION control_partition_of(text, date);
DROP TABLE control_parted;
DO $$
DECLARE
  confined text;
BEGIN
  FOREACH confined IN ARRAY ARRAY[
    'control_append_entries(jsonb)', 'control_append_looks(text[], text[], text, text, text, text, interval, timestamptz)',
    'control_make_look_month(timestamptz)', 'control_note_change(text)', 'control_note_insert()', 'control_note_update()',
    'control_note_delete()', 'control_note_token_end()', 'control_is_audited()'
  ] LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY INVOKER RESET search_path', confined);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', confined);
  END LOOP;
END $$;
