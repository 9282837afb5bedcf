"""What a version runs before it gets its first call.

Here: the requests recorded beside the model (`recorded.py`), and those that this server has kept
from earlier versions of it (`self_warm_up.py`).
Not here: made-up inputs; they are each servable type's own. Start with `recorded.py`.
"""
