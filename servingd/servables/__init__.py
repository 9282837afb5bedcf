"""Plug-ins: one file or folder per servable type, and the registry that names them."""
