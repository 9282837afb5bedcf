"""Varied inputs, and whether two answers are the same.

Here: what optimised graphs and merged calls are tried on, as a second lock behind each proof.
Not here: the proofs. Start with `varied.py`.
"""
