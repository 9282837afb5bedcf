"""TF Lite models, for versions where they are preferred.

Here: reading the flatbuffer, pools of interpreters, and signatures from metadata.
Not here: SavedModels. Start with `servable.py`.
"""
