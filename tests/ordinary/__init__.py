"""Ordinary models, as users export them, and a checker that asks a real server about each."""
