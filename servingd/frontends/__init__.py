"""Sockets: the wires, their tables of methods and routes, and the carriers that move bytes."""
