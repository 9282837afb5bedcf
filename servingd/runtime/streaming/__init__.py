"""Answers in parts: who takes a stream's steps, when, and how many streams there may be.

Here: the turns of a stream, the threads of a version's streams, and the kinds of steps.
Not here: how parts are encoded and sent (`frontends`), and which signatures are a pair
(`core/stream_pairs.py`). Start with `stream.py`.
"""
