"""Where a call runs: on the thread that brought it, or merged with others on a worker.

Here: one dispatcher for all versions, one batcher per signature, and the run of one batch.
Not here: when a batch is complete (`core/batching/policy.py`). Start with `dispatcher.py`.
"""
