"""Several workers behind one port: the supervisor, and the parts of which it is made.

Here: the composition (`supervisor.py`), what workers are told of states (`states.py`), pages and
metrics of all together, the ports that are held for them, and how many there are (`sizing.py`).
`fleet/` commands the workers, `processes/` begins and replaces them, `worker/` is what runs in one,
`link/` is the wire between. Not here: which versions ought to be served; `control.py` decides that
as for one process. Start with `supervisor.py`, then `fleet/state.py`.
"""
