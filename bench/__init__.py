"""Benches: each part measures Sluice against a peer in the same run."""
