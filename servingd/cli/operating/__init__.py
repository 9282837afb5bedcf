"""Commands that look at a running server, or change it.

Here: `status`, `models`, `labels`, `devices`, `workers`. They show and change what servingd's own
pages (`/servingd/v1`) say; where TensorFlow Serving's API will do, they work with its server too.
Not here: calls of models (`calling`), and checks without a server (`checking`).
"""
