"""Permissions that many pages and operations ask for; each has one name here."""

from __future__ import annotations

# Sees decisions, and what is computed from them.
READ = "decisions.view_decision"
# Sees the digest of the credential that a request carried.
SEE_DIGEST = "decisions.view_token_digest"
# Takes decisions out as a file.
EXPORT = "decisions.view_decision_export"
