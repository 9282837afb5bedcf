"""TensorFlow Serving's REST API.

Here: routes, the calls behind them, large bodies, and answers as JSON.
Not here: sockets (`frontends/http`) and the JSON itself (`wire/json`). Start with `api.py`.
"""
