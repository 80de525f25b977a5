-- Adds and changes apps. What is not given (NULL) stays as it is, or has its default for a new app.
WITH given AS (
  SELECT * FROM unnest(
    %s::text[], %s::text[], %s::smallint[], %s::text[], %s::boolean[], %s::timestamptz[], %s::float8[]
  ) AS g (id, tenant, tier, name, verified, created_at, prior)
), done AS (
  INSERT INTO control_app AS a (
    id, name, tenant_id, tier, created_at, verified, cohort_prior, abuse_history, chargeback_history,
    false_throttle_history, found_wrong, imported_id
  )
  SELECT
    g.id, coalesce(g.name, old.name, g.id), coalesce(g.tenant, old.tenant_id), coalesce(g.tier, old.tier),
    coalesce(g.created_at, old.created_at, now()), coalesce(g.verified, old.verified, false),
    coalesce(g.prior, old.cohort_prior, %s), 0, 0, 0, 0, %s
  FROM given g LEFT JOIN control_app old ON old.id = g.id
  ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, tenant_id = excluded.tenant_id, tier = excluded.tier, created_at = excluded.created_at,
    verified = excluded.verified, cohort_prior = excluded.cohort_prior, imported_id = excluded.imported_id
  WHERE (a.name, a.tenant_id, a.tier, a.created_at, a.verified, a.cohort_prior)
    IS DISTINCT FROM
    (excluded.name, excluded.tenant_id, excluded.tier, excluded.created_at, excluded.verified, excluded.cohort_prior)
  -- a row that was inserted has no transaction that ended its version before
  RETURNING (a.xmax = 0) AS added
)
SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM done
