"""Threads and locks: the runtime carries out what the core decides."""
