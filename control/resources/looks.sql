-- The data-access log: who looked at which app's data. A hash chain of its own, partitioned by month, so that looks wait for no
-- change and no change waits for looks, and so that old months can be dropped after a signed checkpoint (control.audit.look_months).
CREATE TABLE control_look (
  seq bigint NOT NULL CHECK (seq > 0),
  at timestamptz NOT NULL,
  actor varchar(200) NOT NULL,
  actor_login varchar(200) NOT NULL,
  actor_role varchar(200) NOT NULL,
  app varchar(128) NOT NULL,
  what varchar(120) NOT NULL,
  ticket varchar(40) NOT NULL,
  prev_hash varchar(64) NOT NULL,
  hash varchar(64) NOT NULL,
  -- in this order: the end of the chain is found in the newest month alone
  PRIMARY KEY (at, seq)
) PARTITION BY RANGE (at);
-- of an app, newest first; and whether a look is recorded already
CREATE INDEX looks_of_app ON control_look (app, at);
-- the checkpoints of dropped months
CREATE INDEX audit_checkpoints ON control_auditentry (seq) WHERE action = 'looks.checkpoint';

-- The hash of a look: SHA-256 over the JSON list of the hash before and all other columns.
CREATE FUNCTION control_look_hash(l control_look) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT encode(sha256(convert_to(json_build_array(
    l.prev_hash, l.seq, to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
    l.actor, l.actor_login, l.actor_role, l.app, l.what, l.ticket
  )::text, 'UTF8')), 'hex')
$$;

-- The end of the chain: the newest look, else the end of the month that was dropped last, else the beginning.
CREATE FUNCTION control_look_end(OUT seq bigint, OUT hash text, OUT at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  SELECT l.seq, l.hash, l.at INTO seq, hash, at FROM control_look l ORDER BY l.at DESC, l.seq DESC LIMIT 1;
  IF seq IS NULL THEN
    SELECT (a.after ->> 'last_seq')::bigint, a.after ->> 'last_hash', (a.after ->> 'last_at')::timestamptz
      INTO seq, hash, at FROM control_auditentry a WHERE a.action = 'looks.checkpoint' ORDER BY a.seq DESC LIMIT 1;
  END IF;
  seq := COALESCE(seq, 0);
  hash := COALESCE(hash, repeat('0', 64));
  at := COALESCE(at, '-infinity');
END $$;

-- A look can only be appended, and only at the end.
CREATE FUNCTION control_continue_looks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  last record;
BEGIN
  SELECT * INTO last FROM control_look_end();
  IF NEW.seq <> last.seq + 1 OR NEW.prev_hash <> last.hash OR NEW.at < last.at OR NEW.hash <> control_look_hash(NEW) THEN
    RAISE EXCEPTION 'look % does not continue the chain', NEW.seq USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER look_append_only BEFORE UPDATE OR DELETE ON control_look
  FOR EACH ROW EXECUTE FUNCTION control_refuse();
CREATE TRIGGER look_no_truncate BEFORE TRUNCATE ON control_look
  FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
CREATE TRIGGER look_continues BEFORE INSERT ON control_look
  FOR EACH ROW EXECUTE FUNCTION control_continue_looks();

-- Makes the partition of the month (UTC) that holds a moment. Made apart and attached: that keeps no reader waiting.
CREATE FUNCTION control_make_look_month(moment timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
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

-- Appends looks of one person, but none that is recorded already since `again` ago. Returns the place (from 1) of each that is new.
-- One statement does it all under the chain's lock, so others wait for milliseconds. `moment` is now, unless a test says otherwise.
CREATE FUNCTION control_append_looks(
  apps text[], whats text[], by_name text, by_login text, by_role text, for_ticket text, again interval, moment timestamptz
) RETURNS SETOF integer LANGUAGE plpgsql AS $$
DECLARE
  last record;
  look control_look;
BEGIN
  -- "SLUL" in ASCII
  PERFORM pg_advisory_xact_lock(x'534C554C'::bigint);
  SELECT * INTO last FROM control_look_end();
  look.seq := last.seq;
  look.hash := last.hash;
  -- by the database's clock, and never backwards: each month holds one unbroken piece of the chain
  look.at := GREATEST(COALESCE(moment, clock_timestamp()), last.at);
  look.actor := by_name;
  look.actor_login := by_login;
  look.actor_role := by_role;
  look.ticket := for_ticket;
  PERFORM control_make_look_month(look.at);
  FOR place IN 1 .. cardinality(apps) LOOP
    look.app := apps[place];
    look.what := whats[place];
    CONTINUE WHEN EXISTS (
      SELECT FROM control_look l WHERE l.app = look.app AND l.at > look.at - again
        AND l.actor_login = look.actor_login AND l.what = look.what AND l.ticket = look.ticket
    );
    look.seq := look.seq + 1;
    look.prev_hash := look.hash;
    look.hash := control_look_hash(look);
    INSERT INTO control_look SELECT look.*;
    RETURN NEXT place;
  END LOOP;
END $$;
