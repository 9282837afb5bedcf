"""The use cases: what a call means, whatever wire it came by."""
