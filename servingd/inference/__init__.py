"""The use cases: what each call does, independent of the API that it came by.

Here: Predict, Classify, Regress, MultiInference, status, metadata, and the replay of recorded
calls.
Not here: wire formats beyond tensors, and threads. Start with `predict.py`.
"""
