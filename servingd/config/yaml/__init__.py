"""`servingd.yaml`: flags and models in one file.

Here: from a document to a `ServerConfig` and `ModelConfig`s; errors name file, line and field.
Not here: other files. Start with `document.py`.
"""
