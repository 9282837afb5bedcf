"""The wire: message classes, tensors and configuration files, to and from our own values."""
