"""Servable types of other people's: how they are found, and what stands between them and us.

Here: references to types (`references.py`), loads (`loading.py`), the guard around a servable
(`guard.py`), the outcome of one of its runs (`outcome.py`), and event loops for its coroutines
(`event_loop.py`).
Not here: what authors derive from (`servables/plugin.py`). Start with `guard.py`.
"""
