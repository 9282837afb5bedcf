"""The pure core: decisions as functions of values. No threads, clock, files or TensorFlow."""
