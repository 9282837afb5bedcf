"""Servables that are made of other models.

Here: what they know of the server (`parts.py`), composites (`composite/`), tables that are split
over models (`sharded/`), and by which rule (`splitting.py`).
Not here: the parts; they are models of any type. Start with `parts.py`.
"""
