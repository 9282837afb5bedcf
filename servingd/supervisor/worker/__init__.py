"""What runs in a worker process.

Here: its composition and the thread that carries out commands (`worker_process.py`), the control
plane as it sees it (`remote_control.py`), and administrators' actions, which it hands on
(`actions.py`). Not here: the data plane itself; that is `servingd/worker.py`, as in a server of one
process. Start with `worker_process.py`.
"""
