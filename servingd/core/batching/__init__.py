"""Which calls wait, which run together, how they are merged, and which are refused.

Here: the queue, which decides when a batch is dispatched and with which calls (`queue.py`), by the
limits of a policy (`batch_limits.py`); how tensors are joined and split (`merge.py`), what calls
cost (`cost.py`), which calls are refused at once (`refusal.py`), and which inputs are kept for
warming up (`samples.py`).
Not here: worker threads; they are in `runtime/batching`. Whether calls of a signature may be merged
at all; that is the servable's (`servables/saved_model/merging/`). Start with `queue.py`.
"""
