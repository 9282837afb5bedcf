"""What can be configured, as frozen dataclasses: parsed once, checked once."""
