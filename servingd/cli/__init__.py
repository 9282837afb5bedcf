"""The programs `servingd` and `tensorflow_model_server`.

Here: subcommands, what they print, and their exit status. `serve` starts the server.
Not here: code that another program would call; it is in the packages below. Start with `main.py`.
"""
