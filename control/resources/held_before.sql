-- Roles that people have since before grants were kept: nobody knows any more who gave them.
INSERT INTO control_grant (person_id, role, by, by_login, at, reason, taken_by, taken_login)
SELECT m.user_id, g.name, 'Unknown', '', now(), 'Held since before grants were kept', '', ''
FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id;
