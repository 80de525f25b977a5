"""Columns of the feature vector, as constants that compiled code can read.

Derived from the order of `features.FEATURES`; no number is assigned by hand. A test holds that
there is one constant for each feature, and that `features_of.features_of` writes each of them once.
"""

from __future__ import annotations

from decider.contracts.features import INDEX as F

RATE_1S = F["rate_1s"]
RATE_10S = F["rate_10s"]
RATE_60S = F["rate_60s"]
RATE_600S = F["rate_600s"]
BURST_RATIO = F["burst_ratio"]
GAP_CV = F["gap_cv"]
COST_RATE = F["cost_rate_60s"]
REQUEST_COST = F["request_cost"]
ERRORS = F["error_share_60s"]
ERRORS_4XX = F["client_error_share_60s"]
ERRORS_5XX = F["server_error_share_60s"]
ERRORS_AUTH = F["auth_error_share_60s"]
ERRORS_MISSING = F["not_found_share_60s"]
ERRORS_PAYMENT = F["payment_error_share_60s"]
REFUSED = F["refused_share_60s"]
RETRIES = F["retry_share_60s"]
EARLY = F["early_retry_share_60s"]
ENDPOINTS = F["distinct_endpoints_60s"]
ENTROPY = F["endpoint_entropy_60s"]
PATHS = F["distinct_paths_60s"]
TOKENS_SEEN = F["distinct_tokens_60s"]
SOURCES = F["distinct_sources_60s"]
WRITES = F["write_share_60s"]
PAYLOAD_MEAN = F["payload_mean_60s"]
PAYLOAD_NOW = F["payload_now"]
QUOTA_USED = F["quota_used"]
SINCE_LAST = F["seconds_since_last"]
SINCE_FIRST = F["seconds_since_first"]
HOUR = F["hour_of_week"]
TIER = F["tier"]
APP_AGE = F["app_age"]
VERIFIED = F["verified"]
COHORT = F["cohort_prior"]
ABUSE = F["abuse_history"]
CHARGEBACKS = F["chargeback_history"]
WRONG = F["false_throttle_history"]
SERVICE_LOAD = F["service_utilisation"]
SERVICE_LATENCY = F["service_latency_ratio"]
SERVICE_ERRORS = F["service_error_share"]
TENANT_SHARE = F["tenant_share"]
FEEDBACK_AGE = F["feedback_age"]
