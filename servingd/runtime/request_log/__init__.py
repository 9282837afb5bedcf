"""Logs of requests and answers, sampled, as TFRecord files.

Here: sampling and the writing thread (`logs.py`), files and their rotation (`files.py`).
Not here: the record's format (`wire/records`). Start with `logs.py`.
"""
