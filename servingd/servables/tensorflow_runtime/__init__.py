"""TensorFlow in this process: its import, its noise, extensions and the profiler.

Here: what exists once per process, and how its errors become ours.
Not here: sessions and models; the type of servables called `tensorflow` is `saved_model`.
Start with `runtime.py`.
"""
