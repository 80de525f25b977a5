DROP TRIGGER look_is_of_today ON control_look;
DROP FUNCTION control_look_is_of_today();
-- Makes the partition of the month (UTC) that holds a moment. Made apart and attached: that keeps no reader waiting.
CREATE OR REPLACE FUNCTION control_make_look_month(moment timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  month timestamp := date_trunc('month', moment AT TIME ZONE 'UTC');
  name text := 'control_look_' || to_char(month, 'YYYYMM');
BEGIN
  IF to_regclass(name) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I (LIKE control_look INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
  EXECUTE format(
    'ALTER TABLE control_look ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
    name, to_char(month, 'YYYY-MM-DD') || ' 00:00+00', to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00+00'
  );
  -- triggers on rows come with the table, this one does not
  EXECUTE format(
    'CREATE TRIGGER look_no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION control_refuse()', name
  );
  RETURN true;
END $$;

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
