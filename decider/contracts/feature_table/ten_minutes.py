"""The features of the last ten minutes, of sign-ins and of addresses.

They rest on nothing that only API clients have: no credential and no profile.
"""

from __future__ import annotations

from decider.contracts.feature import Feature
from decider.contracts.feature import make_feature as _f

TEN_MINUTE_FEATURES: tuple[Feature, ...] = (
    _f(
        "client_error_share_600s",
        "share",
        "4xx answers, last 10 min",
        "CLIENT_ERRORS_10M",
        "{value} of ten minutes' answers were 4xx. Similar apps see {typical}.",
        "Only {value} of ten minutes' answers were 4xx. Similar apps see {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
        risk=1,
    ),
    _f(
        "client_errors_600s",
        "count",
        "4xx answers in 10 min",
        "CLIENT_ERROR_COUNT_10M",
        "{value} answers in ten minutes were 4xx. Similar apps get {typical}.",
        "Only {value} answers in ten minutes were 4xx. Similar apps get {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
        risk=1,
    ),
    _f(
        "auth_error_share_600s",
        "share",
        "401 and 403 answers, last 10 min",
        "AUTH_ERRORS_10M",
        "{value} of ten minutes' answers were 401 or 403. Similar apps see {typical}.",
        "Only {value} of ten minutes' answers were 401 or 403. Similar apps see {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
        risk=1,
    ),
    _f(
        "not_found_share_600s",
        "share",
        "404 answers, last 10 min",
        "NOT_FOUND_10M",
        "{value} of ten minutes' answers were 404. Similar apps see {typical}.",
        "Only {value} of ten minutes' answers were 404. Similar apps see {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
        risk=1,
    ),
    _f(
        "write_share_600s",
        "share",
        "Requests that write, last 10 min",
        "WRITES_10M",
        "{value} of ten minutes' requests were writes. Similar apps write {typical}.",
        "Only {value} of ten minutes' requests were writes. Similar apps write {typical}.",
        "counters",
        "WRITES",
    ),
    _f(
        "sign_in_share_600s",
        "share",
        "Requests that sign in, last 10 min",
        "SIGN_INS_10M",
        "{value} of ten minutes' requests tried to sign in. Similar apps: {typical}.",
        "Only {value} of ten minutes' requests tried to sign in. Similar apps: {typical}.",
        "counters",
        "IDENTITY",
        risk=1,
    ),
    _f(
        "sign_ins_60s",
        "count",
        "Sign-ins a minute",
        "SIGN_IN_COUNT",
        "{value} requests in a minute tried to sign in. Similar apps send {typical}.",
        "Only {value} requests in a minute tried to sign in. Similar apps send {typical}.",
        "counters",
        "IDENTITY",
        risk=1,
    ),
    _f(
        "path_entropy_600s",
        "bits",
        "Spread over paths, last 10 min",
        "PATH_SPREAD_10M",
        "Its requests of ten minutes spread over more paths than usual, as over {value}. Similar"
        " apps {typical}.",
        "Its requests of ten minutes spread over fewer paths than usual, as over {value}. Similar"
        " apps {typical}.",
        "counters",
        "SPREAD",
    ),
    _f(
        "busiest_path_share_600s",
        "share",
        "Requests to the busiest paths, last 10 min",
        "BUSIEST_PATH_10M",
        "{value} of ten minutes' requests went to its busiest paths. Similar apps: {typical}.",
        "Only {value} of ten minutes' requests went to its busiest paths. Similar apps: {typical}.",
        "counters",
        "SPREAD",
    ),
    _f(
        "apps_of_source_600s",
        "count",
        "Apps of its address, last 10 min",
        "APPS_OF_ADDRESS",
        "About {value} apps sent from its address in ten minutes. Usual for similar apps:"
        " {typical}.",
        "Only about {value} apps sent from its address in ten minutes. Usual for similar apps:"
        " {typical}.",
        "counters",
        "IDENTITY",
        risk=1,
    ),
    _f(
        "new_apps_of_source_600s",
        "count",
        "New apps of its address, last 10 min",
        "NEW_APPS_OF_ADDRESS",
        "{value} apps that were never seen before sent from its address in ten minutes. Usual for"
        " similar apps: {typical}.",
        "Only {value} apps that were never seen before sent from its address in ten minutes. Usual"
        " for similar apps: {typical}.",
        "counters",
        "IDENTITY",
        risk=1,
    ),
    _f(
        "source_error_share_600s",
        "share",
        "4xx answers of its address, last 10 min",
        "ADDRESS_ERRORS_10M",
        "{value} of the answers to its address in ten minutes were 4xx. Usual for similar apps:"
        " {typical}.",
        "Only {value} of the answers to its address in ten minutes were 4xx. Usual for similar"
        " apps: {typical}.",
        "feedback",
        "IDENTITY",
        risk=1,
    ),
)
