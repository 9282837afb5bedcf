"""TensorFlow in this process: its import, its noise, extensions and the profiler.

Here: what exists once per process, and how its errors become ours.
Not here: sessions and models. Start with `runtime.py`.
"""
