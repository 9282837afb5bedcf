"""The command line: from a list of arguments to a `ServerConfig`.

Here: parsing and its messages, other spellings of flags, and flags of TensorFlow Serving that have
no effect. The fields themselves are those of `config/server.py`: a flag is a field.
Not here: what a flag does. Start with `parser.py`.
"""
