"""Better sessions for a version that serves: made in a child process, compared, then swapped in.

Here: the thread that owns the work (`optimiser.py`), one version's work (`job.py`), the child's
program (`child.py`), and the cache of optimised graphs.
Not here: how a session is opened and run (`session/`). Start with `optimiser.py`; DESIGN 009 says
why an optimised graph answers as the plain one.
"""
