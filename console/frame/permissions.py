"""Permissions that many pages and operations ask for; each has one name here."""

from __future__ import annotations

READ = "decisions.view_decision"
"""Sees decisions, and what is computed from them."""
SEE_DIGEST = "decisions.view_token_digest"
"""Sees the digest of the credential that a request carried."""
EXPORT = "decisions.view_decision_export"
"""Takes decisions out as a file."""
