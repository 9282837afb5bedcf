"""Commands that call models: `predict` and `bench`. They work with TensorFlow Serving too.

Not here: the client itself (`servingd/client`).
"""
