"""The programs `servingd` and `tensorflow_model_server`.

Here: subcommands, what they print, and their exit status. `serve` starts the server.
Not here: anything a test or another program would want to call; that lies below.
Start with `main.py`.
"""
