"""Records of requests: TensorFlow Serving's `PredictionLog` in TFRecord files.

Here: what warm-up files and request logs consist of.
Not here: who writes and replays them (`runtime`). Start with `prediction_logs.py`.
"""
