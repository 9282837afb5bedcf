"""The platform `keras`: `.keras` and `.h5` files as versions.

Here: when such a file is whole, and how a child process exports it as a SavedModel (`child.py`,
`exports.py`), which is then served as any other.
Not here: Keras itself in the server's process. Start with `platform.py`.
"""
