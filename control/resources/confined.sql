-- Programs run as roles that own nothing (console/local/postgres/tables.py). What they may do only in one way they do through functions that run
-- as the owner: each checks what it is given, and finds names in our schema alone.

-- The tables whose days programs may make and drop, and the column with the time at which a row was stored. Only a migration adds one.
CREATE TABLE control_parted (name text PRIMARY KEY, stored text NOT NULL);
INSERT INTO control_parted VALUES
  ('decisions_decision', 'stored_at'), ('decisions_replayed', 'stored_at'), ('explain_explanation', 'computed_at');

-- Returns the name of a day's partition; refuses other tables, and days that no decision has.
CREATE FUNCTION control_partition_of(parted text, day date) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM control_parted p WHERE p.name = parted) THEN
    RAISE EXCEPTION '% is no table whose days are made and dropped', COALESCE(parted, 'NULL')
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF day IS NULL OR day NOT BETWEEN '2000-01-01' AND '9999-12-30' THEN
    RAISE EXCEPTION '% is no day of a partition', COALESCE(day::text, 'NULL') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN parted || '_' || to_char(day, 'YYYYMMDD');
END $$;

-- Makes the partition of a day (UTC) and moves its rows there from the default partition. Returns whether it was missing.
CREATE FUNCTION control_make_day(parted text, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  name text := control_partition_of(parted, day);
  since text := day::text || ' 00:00:00+00';
  until text := (day + 1)::text || ' 00:00:00+00';
BEGIN
  -- two programs never make the same day
  PERFORM pg_advisory_xact_lock(x'51C1CE01'::bigint);
  IF to_regclass(format('%I', name)) IS NOT NULL THEN
    RETURN false;
  END IF;
  -- ATTACH scans the default partition for rows of this day; the lock keeps late ones out between the move and the scan
  EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parted || '_default');
  -- made apart and attached: CREATE ... PARTITION OF fails while the default partition holds rows of this day
  EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parted);
  EXECUTE format(
    'WITH moved AS (DELETE FROM %I WHERE at >= %L AND at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
    parted || '_default', since, until, name
  );
  EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parted, name, since, until);
  RETURN true;
END $$;

-- Drops the partition of a day that is over (UTC), and writes down what went. Returns how many rows it had, NULL when it is gone already.
CREATE FUNCTION control_drop_day(parted text, day date, why text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  name text := control_partition_of(parted, day);
  held bigint;
  size bigint;
BEGIN
  IF day >= (now() AT TIME ZONE 'UTC')::date THEN
    RAISE EXCEPTION '% is not over, so its rows are kept', day USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM pg_advisory_xact_lock(x'51C1CE01'::bigint);
  IF NOT EXISTS (
    SELECT FROM pg_inherits WHERE inhparent = format('%I', parted)::regclass AND inhrelid = to_regclass(format('%I', name))
  ) THEN
    RETURN NULL;
  END IF;
  size := pg_total_relation_size(format('%I', name)::regclass);
  EXECUTE format('SELECT count(*) FROM %I', name) INTO held;
  EXECUTE format('DROP TABLE %I', name);
  INSERT INTO decisions_droppedday (name, day, rows, size, why) VALUES (parted, day, held, size, why);
  RETURN held;
END $$;

-- Deletes what the default partition stored before a day that has begun. Returns how many rows that were.
CREATE FUNCTION control_drop_strays(parted text, before date) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  stored text;
  gone bigint;
BEGIN
  PERFORM control_partition_of(parted, before);
  IF before > (now() AT TIME ZONE 'UTC')::date THEN
    RAISE EXCEPTION '% has not begun', before USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT p.stored INTO stored FROM control_parted p WHERE p.name = parted;
  EXECUTE format('DELETE FROM %I WHERE %I < %L', parted || '_default', stored, before::text || ' 00:00:00+00');
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END $$;

-- Drops the looks of a month (UTC) that ended 31 days ago or earlier. The transaction is refused at its commit if it has no entry in the
-- audit log; a program signs a checkpoint there (control.audit.look_months).
CREATE FUNCTION control_drop_look_month(month timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  first timestamp := month AT TIME ZONE 'UTC';
  name text := 'control_look_' || to_char(first, 'YYYYMM');
  held boolean;
BEGIN
  IF month IS NULL OR NOT isfinite(month) OR first <> date_trunc('month', first)
      OR first + interval '1 month' > (now() AT TIME ZONE 'UTC') - interval '31 days' THEN
    RAISE EXCEPTION '% is no month of looks that may go', COALESCE(month::text, 'NULL') USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_inherits WHERE inhparent = 'control_look'::regclass AND inhrelid = to_regclass(format('%I', name))
  ) THEN
    RAISE EXCEPTION 'there are no looks of %', month USING ERRCODE = 'invalid_parameter_value';
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO held;
  EXECUTE format('DROP TABLE %I', name);
  IF held THEN
    PERFORM control_note_change('a month that was dropped from control_look');
  END IF;
END $$;

-- Each look is at the time of the one before it or later, so one far ahead would date all that follow.
CREATE FUNCTION control_look_is_of_today() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.at > clock_timestamp() + interval '1 day' THEN
    RAISE EXCEPTION 'a look at % is ahead of the clock', NEW.at USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER look_is_of_today BEFORE INSERT ON control_look
  FOR EACH ROW EXECUTE FUNCTION control_look_is_of_today();

-- Makes the partition of the month (UTC) that holds a moment, as before; refuses months that no look can have by now or soon.
CREATE OR REPLACE FUNCTION control_make_look_month(moment timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  month timestamp := date_trunc('month', moment AT TIME ZONE 'UTC');
  name text := 'control_look_' || to_char(month, 'YYYYMM');
BEGIN
  IF moment IS NULL OR NOT isfinite(moment) OR moment < '2000-01-01 00:00+00' OR moment > now() + interval '100 days' THEN
    RAISE EXCEPTION '% is no time of a look', COALESCE(moment::text, 'NULL') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF to_regclass(format('%I', name)) IS NOT NULL THEN
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

DO $$
DECLARE
  confined text;
BEGIN
  FOREACH confined IN ARRAY ARRAY[
    'control_append_entries(jsonb)', 'control_append_looks(text[], text[], text, text, text, text, interval, timestamptz)',
    'control_make_look_month(timestamptz)', 'control_drop_look_month(timestamptz)',
    'control_make_day(text, date)', 'control_drop_day(text, date, text)', 'control_drop_strays(text, date)',
    -- of triggers: who changes a row writes no note by themselves
    'control_note_change(text)', 'control_note_insert()', 'control_note_update()', 'control_note_delete()',
    'control_note_token_end()', 'control_is_audited()'
  ] LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = public, pg_temp', confined);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', confined);
  END LOOP;
END $$;
