"""The one owner of the versions' life cycle, and what it offers to others.

Here: the thread that feeds events to `core/lifecycle` and carries out its commands, the state
monitor (public states), and reloads. Not here: decisions; `core/lifecycle/reconcile.py` makes
them. Nor the versions themselves: the fleet (`fleet.py`) has them. Start with `manager.py`.
"""
