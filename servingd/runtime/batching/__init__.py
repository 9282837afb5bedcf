"""Run calls on the thread that received them, or merged with others on a worker thread.

Here: one dispatcher for all versions, one batcher per signature, and the run of one batch.
Not here: when a batch is dispatched (`core/batching/queue.py`). Start with `dispatcher.py`.
"""
