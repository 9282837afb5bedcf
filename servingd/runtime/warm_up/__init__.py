"""What a version runs before it gets its first call.

Here: the requests recorded with the model (`recorded.py`), and those that this server has kept
(`self_warm_up.py`).
Not here: synthetic inputs; they belong to each servable type. Start with `recorded.py`.
"""
