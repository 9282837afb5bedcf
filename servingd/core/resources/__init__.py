"""Memory and devices: what a version needs, where it is placed, and whether there is room.

Here: estimates, the choice of devices, and the tracker of what is reserved.
Not here: how memory is measured; that is `runtime/manager` and `machine`. Start with `tracker.py`.
"""
