DROP FUNCTION control_append_entries(jsonb);
