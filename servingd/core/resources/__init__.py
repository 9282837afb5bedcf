"""Memory and devices: what a version needs, where it is placed, and whether there is room.

Here: footprints and their corrections, the choice of devices, and the tracker of what is reserved.
Not here: what makes an estimate; that is each loader. How memory is measured; that is
`runtime/manager` and `machine`. Start with `tracker.py`.
"""
