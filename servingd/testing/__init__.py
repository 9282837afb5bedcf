"""Tests for authors of servable types: what every type must keep. It needs pytest.

Here: the contract, as a class of tests (`contract.py`).
Not here: servingd's own tests. Start with `contract.py`.
"""
