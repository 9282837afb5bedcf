"""TensorFlow Serving's configuration files in text format, as our configuration.

Here: model_config_list, batching parameters, platform and monitoring files.
Not here: the fields themselves (`config`). Start with `files.py`.
"""
