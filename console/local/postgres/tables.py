"""Who may do what with each table and function of the database. Every table has a line here; a test
fails for one that has none, and nobody but its owner gets to one without.

A program that is taken over must not be able to rewrite what was recorded, nor to switch off the
triggers that hold it: only the owner of a table may do that, and no program runs as it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control.database_roles.roles import DatabaseRole

# Hides a whole table from the reader.
ALL: Final = ("*",)


@dataclass(frozen=True)
class Table:
    """What each role may do with one table, as SQL names it. The owner may do everything."""

    name: str
    app: str = ""
    ingest: str = ""
    hidden: tuple[str, ...] = ()
    """Columns that the reader may not see; `ALL` for the table."""


# What an ordinary table of Django's gets.
_ANY: Final = "select, insert, update, delete"
# A table to which rows are only added.
_ADD: Final = "select, insert"

TABLES: Final = (
    # the logs: appended to by functions, which number and hash
    Table("control_auditentry", "select"),
    Table("control_look", "select"),
    # notes of open transactions, written by triggers alone
    Table("control_change", hidden=ALL),
    # which tables have partitions that programs may make and drop; only a migration adds one
    Table("control_parted"),
    Table("control_configversion", f"{_ADD}, update (published_at)"),
    Table("control_tenant", f"{_ADD}, update"),
    Table("control_app", f"{_ADD}, update"),
    Table("control_switchflip", f"{_ADD}, update"),
    Table("control_appnote", _ADD),
    Table("control_installation", f"{_ADD}, update"),
    Table("control_appliedfile", _ADD),
    Table("control_appimport", f"{_ADD}, update"),
    # triggers hold what of a request and a review may change
    Table("approvals_request", f"{_ADD}, update"),
    Table("approvals_vote", _ADD),
    Table("approvals_mode", _ADD),
    Table("approvals_review", f"{_ADD}, update"),
    Table("control_anchorreport", f"{_ADD}, update"),
    Table("rollouts_modelversion", f"{_ADD}, update"),
    # events go in whole; their days go by a function
    Table("decisions_decision", _ADD, "insert", ("token_digest",)),
    Table("decisions_decision_default", "select", hidden=ALL),
    Table("decisions_replayed", _ADD, "insert", ("token_digest",)),
    Table("decisions_replayed_default", "select", hidden=ALL),
    Table("decisions_ingestedbatch", "select, insert, delete", _ADD),
    Table("decisions_facetkey", _ADD, _ADD),
    Table("decisions_appcountkey", _ADD, _ADD),
    Table("decisions_facet", "select, insert, delete", "insert"),
    Table("decisions_appcount", "select, insert, delete", "insert"),
    Table("decisions_countlevel", f"{_ADD}, update"),
    Table("decisions_tokenday", "select, insert, delete", "insert", ALL),
    # ingest counts what is kept aside and reads none of it
    Table("decisions_buriedevent", _ANY, "select (id, buried_at), insert", ("raw",)),
    Table("decisions_deciderrun", _ANY, f"{_ADD}, update"),
    # written by the function that drops a day
    Table("decisions_droppedday", "select"),
    Table("decisions_savedsearch", _ANY),
    Table("decisions_outcome", _ADD, hidden=("token_digest",)),
    Table("decisions_dispute", f"{_ADD}, update"),
    Table("decisions_outcometie", f"{_ADD}, update"),
    Table("explain_explanation", _ADD),
    Table("explain_explanation_default", "select", hidden=ALL),
    Table("explain_modelcheck", f"{_ADD}, update"),
    Table("explain_forecast", _ANY),
    # what a role of the console may do is written by migrations
    Table("auth_permission", "select"),
    Table("auth_group", "select"),
    Table("auth_group_permissions", "select"),
    Table("django_content_type", "select"),
    Table("django_migrations", "select"),
    Table("auth_user", _ANY, hidden=("password",)),
    Table("control_grant", f"{_ADD}, update"),
    Table("auth_user_groups", _ANY),
    Table("auth_user_user_permissions", _ANY),
    Table("django_session", _ANY, hidden=ALL),
    # the digest of a token, and the beginning of the token itself
    Table("knox_authtoken", _ANY, hidden=("digest", "token_key")),
    # wrong tries to sign in, under digests
    Table("control_signintry", _ANY, hidden=ALL),
)

_APP: Final = (DatabaseRole.APP,)

# Functions that run as their owner, by what they are called with, and who may call them. They are
# the only way to what no other role may do by itself.
FUNCTIONS: Final[dict[str, tuple[DatabaseRole, ...]]] = {
    "control_append_entries(jsonb)": _APP,
    "control_append_looks(text[], text[], text, text, text, text, interval, timestamptz)": _APP,
    "control_make_look_month(timestamptz)": _APP,
    "control_drop_look_month(timestamptz)": _APP,
    # ingest makes the day of a late event, and drops none
    "control_make_day(text, date)": (DatabaseRole.APP, DatabaseRole.INGEST),
    "control_drop_day(text, date, text)": _APP,
    "control_drop_strays(text, date)": _APP,
}

# Functions that triggers call as whoever changes a row. They check what they are given and neither
# read nor change anything.
CHECKS: Final[dict[str, tuple[DatabaseRole, ...]]] = {"approvals_check_content(text, text)": _APP}
