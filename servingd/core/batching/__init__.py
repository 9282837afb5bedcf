"""Which calls wait, which run together, how they are merged, and which are refused.

Here: the queue's data (`queue.py`), when a batch is dispatched (`policy.py`), how tensors are
joined and split (`merge.py`), what calls cost (`cost.py`), and which inputs are kept for warming
up (`samples.py`).
Not here: worker threads; they are in `runtime/batching`. Start with `queue.py`.
"""
