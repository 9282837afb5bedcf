"""The threads that carry out what the core decides.

Here: the manager and its load pool (`manager/`), the queues' workers (`batching/`), warm-up and
request logs, calls held for the first models (`first_calls.py`), the budget for large bodies
(`byte_budget.py`), and the class of all thread pools (`threads.py`). Each thread has a name and an
owner that starts and stops it. Transports, sources and the optimiser own threads of theirs.
Not here: decisions; they are in `core`. Start with `manager/manager.py`.
"""
