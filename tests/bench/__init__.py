"""Benchmarks: each prints ratios against a reference of the same run, never times alone."""
