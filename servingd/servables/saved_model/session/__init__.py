"""A TensorFlow session: how it is opened, run, timed, traced and closed.

Here: TensorFlow's C API and its Python session behind one class (`session.py`), its callables
(`callables.py`), the methods of opening it (`opening.py`), its warm-up, the devices that its
operations run on, and the watch that ends runs nobody waits for.
Not here: whether a session is better than another (`optimise/`). Start with `session.py`.
"""
