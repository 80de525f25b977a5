-- A note stays as it was written.
CREATE TRIGGER note_fixed BEFORE UPDATE OR DELETE ON control_appnote
  FOR EACH ROW EXECUTE FUNCTION control_refuse();
CREATE TRIGGER note_no_truncate BEFORE TRUNCATE ON control_appnote
  FOR EACH STATEMENT EXECUTE FUNCTION control_refuse();
