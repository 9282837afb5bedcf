"""Programs for clients that we did not write: each runs in an environment of its own.

`tests/e2e/test_oip_clients.py` starts them beside a server. Each prints one JSON document.
"""
