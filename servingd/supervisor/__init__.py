"""Several workers behind one port: the processes, and the fleet that the manager commands.

Here: which worker must do what (`fleet_state.py`, pure), when one is begun anew and which version
is blamed for deaths (`deaths.py`, pure), the thread that carries both out (`fleet.py`, `crew.py`),
the processes (`processes.py`), the wire between them (`messages.py`, `channel.py`), and what is put
together from these: `supervisor.py` and, in a worker, `worker_process.py`. Not here: which versions
ought to be served; `control.py` decides that as for one process. Start with `fleet_state.py`.
"""
