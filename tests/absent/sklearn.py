"""Stands for what is not there: see `tests/conftest.py`."""

raise ModuleNotFoundError("sklearn is kept from servers that tests start", name="sklearn")
