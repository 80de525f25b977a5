"""Counts kept ready for pages: appended with each stored batch, rolled up, and read as estimates
with intervals.
"""
