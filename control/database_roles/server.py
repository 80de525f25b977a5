"""SQL that makes the roles in a server and hands a database over to its owner, for someone who may
make roles there: `manage.py up` in the embedded server, an administrator in one of their own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping

from control.database_roles.roles import DatabaseRole, role_name

# Bytes of salt, and rounds, of a password's verifier. PostgreSQL's own defaults (scram_iterations).
SALT_BYTES, ROUNDS = 16, 4096
# Connections that readers may have open together. Chosen: a report or two, and the programs keep
# theirs of the server's (60 of the embedded one).
READERS = 5
# Seconds for one statement of a reader. Chosen: a heavy report, which must end some time.
READER_STATEMENT_S = 300


def verifier(password: str, salt: bytes | None = None) -> str:
    """Return what PostgreSQL keeps of a password (SCRAM-SHA-256, RFC 5803 and RFC 7677), from which
    nobody gets the password back.
    """
    salt = salt or secrets.token_bytes(SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    first, *rest = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ROUNDS}:{first}${':'.join(rest)}"


def roles(passwords: Mapping[DatabaseRole, str], prefix: str = "sluice") -> Iterator[str]:
    """Yield the statements that make the roles with these passwords, in any database of the server.
    A role that was there may log in with the new password only, and loses what no role of ours has.
    """
    for role, password in passwords.items():
        name = role_name(role, prefix)
        yield (
            f'DO $$ BEGIN IF to_regrole(\'"{name}"\') IS NULL THEN CREATE ROLE "{name}"; END IF;'
            # asked first: who is no superuser may not even say NOSUPERUSER
            f" IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}' AND (rolsuper OR"
            " rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)) THEN"
            f' ALTER ROLE "{name}" NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;'
            " END IF; END $$"
        )
        yield f"ALTER ROLE \"{name}\" LOGIN PASSWORD '{verifier(password)}'"
    reader = role_name(DatabaseRole.READER, prefix)
    yield f'ALTER ROLE "{reader}" CONNECTION LIMIT {READERS}'
    yield f'ALTER ROLE "{reader}" SET default_transaction_read_only = on'
    yield f"ALTER ROLE \"{reader}\" SET statement_timeout = '{READER_STATEMENT_S}s'"


def handed_over(database: str, prefix: str = "sluice") -> Iterator[str]:
    """Yield the statements that make the owner the owner of a database and of all that is in it,
    also of what an earlier version made as another user. Run them in that database.
    """
    owner = role_name(DatabaseRole.OWNER, prefix)
    names = [role_name(role, prefix) for role in DatabaseRole if role is not DatabaseRole.OWNER]
    users = ", ".join(f'"{name}"' for name in names)
    yield (
        # who is no superuser hands over only to a role that they are a member of
        "DO $$ BEGIN IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN"  # noqa: S608
        f" EXECUTE format('GRANT \"{owner}\" TO %I', current_user); END IF; END $$"
    )
    yield f'ALTER DATABASE "{database}" OWNER TO "{owner}"'
    yield f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC'
    yield f'GRANT CONNECT ON DATABASE "{database}" TO {users}'
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    yield f'GRANT ALL ON SCHEMA public TO "{owner}"'
    yield f"GRANT USAGE ON SCHEMA public TO {users}"
    yield _take_over(owner)
    yield (
        # the size of the write-ahead log, for the disk's budget; only a superuser may give that
        f"DO $$ BEGIN GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO {users};"
        " EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
    )


def _take_over(owner: str) -> str:
    """Return the statement that gives the owner each table, sequence, view and function. REASSIGN
    OWNED cannot: it refuses the user with which an embedded server was made.
    """
    return f"""DO $$
DECLARE
  statement text;
BEGIN
  FOR statement IN
    SELECT format('ALTER %s %s OWNER TO "{owner}"', CASE c.relkind WHEN 'S' THEN 'SEQUENCE'
        WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, c.oid::regclass)
      FROM pg_class c
      WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S', 'v', 'm')
        AND c.relowner <> '"{owner}"'::regrole
        -- a sequence follows the table of its column; what an extension made is its own
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
          AND d.objid = c.oid AND (d.deptype = 'e' OR c.relkind = 'S' AND d.deptype IN ('a', 'i')))
    UNION ALL
    SELECT format('ALTER ROUTINE %s OWNER TO "{owner}"', p.oid::regprocedure)
      FROM pg_proc p
      WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> '"{owner}"'::regrole
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
          AND d.objid = p.oid AND d.deptype = 'e')
  LOOP
    EXECUTE statement;
  END LOOP;
END $$"""  # noqa: S608
