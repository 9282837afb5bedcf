"""What this process may use of its machine: cores and memory, by affinity and control groups.

Here: reading `/proc` and `/sys/fs/cgroup`.
Not here: what is done with the numbers. Start with either file.
"""
