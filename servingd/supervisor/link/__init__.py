"""The wire between the supervisor and a worker.

Here: the messages and their form (`messages.py`), one end of the socket (`channel.py`), and
questions with their answers (`questions.py`). Not here: what they mean. Start with `messages.py`.
"""
