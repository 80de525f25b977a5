-- The rules of four eyes, for every path into the database. The transitions are filled in from control/approvals/lifecycle.py.
CREATE FUNCTION approvals_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

-- Content is a JSON list of [part, before, after]; anything else could be neither shown nor judged. Its digest is of the text.
CREATE FUNCTION approvals_check_content(payload text, digest text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF digest <> encode(sha256(convert_to(payload, 'UTF8')), 'hex') THEN
    RAISE EXCEPTION 'the digest is not that of the content' USING ERRCODE = 'restrict_violation';
  END IF;
  IF jsonb_array_length(payload::jsonb) = 0 OR EXISTS (
    SELECT FROM jsonb_array_elements(payload::jsonb) AS part
    WHERE jsonb_array_length(part) <> 3 OR jsonb_typeof(part -> 0) <> 'string' OR part ->> 0 NOT LIKE '/_%'
  ) THEN
    RAISE EXCEPTION 'the content is no list of parts' USING ERRCODE = 'restrict_violation';
  END IF;
END $$;

-- A request begins open, and its digest is of its content.
CREATE FUNCTION approvals_request_begins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state <> 'open' OR NEW.outcome <> '' THEN
    RAISE EXCEPTION 'a request begins open' USING ERRCODE = 'restrict_violation';
  END IF;
  PERFORM approvals_check_content(NEW.payload, NEW.digest);
  RETURN NEW;
END $$;

-- Only the state changes, with its time and outcome, and only as the table says.
CREATE FUNCTION approvals_request_moves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was approvals_request := OLD;
  approved integer;
BEGIN
  was.state := NEW.state;
  was.closed_at := NEW.closed_at;
  was.outcome := NEW.outcome;
  IF NEW IS DISTINCT FROM was THEN
    RAISE EXCEPTION 'request % is fixed', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  IF (OLD.state, NEW.state) NOT IN ({transitions}) THEN
    RAISE EXCEPTION 'request % may not go from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.state = 'applied' THEN
    -- by the clock: a transaction that began in time may be late
    IF clock_timestamp() >= OLD.expires_at THEN
      RAISE EXCEPTION 'request % has expired', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    IF EXISTS (SELECT FROM approvals_vote v WHERE v.request_id = OLD.id AND v.verdict = 'veto') THEN
      RAISE EXCEPTION 'request % was vetoed', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    SELECT count(DISTINCT v.voter_id) INTO approved FROM approvals_vote v JOIN auth_user u ON u.id = v.voter_id
      WHERE v.request_id = OLD.id AND v.verdict = 'approve' AND v.digest = OLD.digest AND u.is_active
        AND v.voter_id <> OLD.requested_by_id;
    IF approved < OLD.needs THEN
      RAISE EXCEPTION 'request % has % of % approvals', OLD.id, approved, OLD.needs USING ERRCODE = 'restrict_violation';
    END IF;
  ELSIF NEW.state = 'vetoed' AND NOT EXISTS (
    SELECT FROM approvals_vote v WHERE v.request_id = OLD.id AND v.verdict = 'veto'
  ) THEN
    RAISE EXCEPTION 'nobody vetoed request %', OLD.id USING ERRCODE = 'restrict_violation';
  ELSIF NEW.state = 'expired' AND clock_timestamp() < OLD.expires_at THEN
    RAISE EXCEPTION 'request % has not expired', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER request_begins BEFORE INSERT ON approvals_request
  FOR EACH ROW EXECUTE FUNCTION approvals_request_begins();
CREATE TRIGGER request_moves BEFORE UPDATE ON approvals_request
  FOR EACH ROW EXECUTE FUNCTION approvals_request_moves();
CREATE TRIGGER request_stays BEFORE DELETE ON approvals_request
  FOR EACH ROW EXECUTE FUNCTION approvals_refuse();
CREATE TRIGGER request_no_truncate BEFORE TRUNCATE ON approvals_request
  FOR EACH STATEMENT EXECUTE FUNCTION approvals_refuse();

-- A vote is of another person, for the digest that is asked, while it is asked. Holding the request's row lets no vote slip in
-- beside the change of its state.
CREATE FUNCTION approvals_vote_counts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  asked approvals_request;
BEGIN
  SELECT * INTO asked FROM approvals_request r WHERE r.id = NEW.request_id FOR UPDATE;
  IF asked.state IS DISTINCT FROM 'open' OR clock_timestamp() >= asked.expires_at THEN
    RAISE EXCEPTION 'request % is closed', NEW.request_id USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.voter_id = asked.requested_by_id THEN
    RAISE EXCEPTION 'nobody votes on a request of their own' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.digest <> asked.digest THEN
    RAISE EXCEPTION 'the vote is for other content than request %', NEW.request_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER vote_counts BEFORE INSERT ON approvals_vote
  FOR EACH ROW EXECUTE FUNCTION approvals_vote_counts();
CREATE TRIGGER vote_stays BEFORE UPDATE OR DELETE ON approvals_vote
  FOR EACH ROW EXECUTE FUNCTION approvals_refuse();
CREATE TRIGGER vote_no_truncate BEFORE TRUNCATE ON approvals_vote
  FOR EACH STATEMENT EXECUTE FUNCTION approvals_refuse();

-- The mode changes by an applied request that says just this, and by one that really changes it.
CREATE FUNCTION approvals_mode_is_asked() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  asked approvals_request;
BEGIN
  SELECT * INTO asked FROM approvals_request r WHERE r.id = NEW.request_id;
  IF asked.state IS DISTINCT FROM 'applied'
    OR asked.payload <> format('[["/four_eyes",%s,%s]]', CAST(NOT NEW."on" AS text), CAST(NEW."on" AS text)) THEN
    RAISE EXCEPTION 'turning four eyes on or off needs an applied request for it' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW."on" = COALESCE((SELECT m."on" FROM approvals_mode m ORDER BY m.id DESC LIMIT 1), false) THEN
    RAISE EXCEPTION 'four eyes is in this mode already' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER mode_is_asked BEFORE INSERT ON approvals_mode
  FOR EACH ROW EXECUTE FUNCTION approvals_mode_is_asked();
CREATE TRIGGER mode_stays BEFORE UPDATE OR DELETE ON approvals_mode
  FOR EACH ROW EXECUTE FUNCTION approvals_refuse();
CREATE TRIGGER mode_no_truncate BEFORE TRUNCATE ON approvals_mode
  FOR EACH STATEMENT EXECUTE FUNCTION approvals_refuse();

-- A review begins open and is closed once, by someone else than who made the change.
CREATE FUNCTION approvals_review_moves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was approvals_review;
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.closed_at IS NOT NULL THEN
      RAISE EXCEPTION 'a review begins open' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM approvals_check_content(NEW.payload, NEW.digest);
    RETURN NEW;
  END IF;
  was := OLD;
  was.closed_at := NEW.closed_at;
  was.closed_by_id := NEW.closed_by_id;
  was.closed_reason := NEW.closed_reason;
  IF NEW IS DISTINCT FROM was OR OLD.closed_at IS NOT NULL THEN
    RAISE EXCEPTION 'review % is fixed', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  IF EXISTS (
    SELECT FROM auth_user u WHERE u.id = NEW.closed_by_id AND (u.username = OLD.by_login OR NOT u.is_active)
  ) THEN
    RAISE EXCEPTION 'review % waits for another person', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER review_moves BEFORE INSERT OR UPDATE ON approvals_review
  FOR EACH ROW EXECUTE FUNCTION approvals_review_moves();
CREATE TRIGGER review_stays BEFORE DELETE ON approvals_review
  FOR EACH ROW EXECUTE FUNCTION approvals_refuse();
CREATE TRIGGER review_no_truncate BEFORE TRUNCATE ON approvals_review
  FOR EACH STATEMENT EXECUTE FUNCTION approvals_refuse();
