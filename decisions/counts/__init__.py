"""Counts kept ready: appended with each batch, rolled up, estimated with intervals."""
