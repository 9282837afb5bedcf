"""What this process may use of its machine: cores, memory and disks.

Here: reading `/proc` and `/sys/fs/cgroup`.
Not here: what is done with the numbers. Start with any file.
"""
