"""Commands that look at files and at the machine, and load nothing.

Here: `inspect`, `validate`, `doctor` and `warmup`. Not here: what a server says (`operating`).
"""
