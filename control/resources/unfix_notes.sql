DROP TRIGGER note_no_truncate ON control_appnote;
DROP TRIGGER note_fixed ON control_appnote;
