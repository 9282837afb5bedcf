"""The threads that carry out what the core decides.

Here: the manager and its load pool (`manager/`), the queues' workers (`batching/`), warm-up and
request logs. Each thread has a name and an owner that starts and stops it.
Not here: decisions; they are in `core`. Start with `manager/manager.py`.
"""
