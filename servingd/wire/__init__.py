"""Wire formats: from bytes to our values and back.

Here: protobuf messages, tensors, JSON, text configuration files and TFRecords.
Not here: who sends them, and what they mean for a call. Start with `tensors/decoding.py` or
`json/tensors.py`.
"""
