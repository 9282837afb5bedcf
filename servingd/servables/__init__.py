"""The servable types: what a version's folder means, and how it is loaded and run.

Here: the registry of types, and one package per type: `lookup_table/`, and `saved_model/`, which
loads `tflite/` models too. The rest is shared: TensorFlow's import and
process-wide state (`tensorflow_runtime/`), made-up inputs, files beside a model, errors of files. A
type is a Platform that makes Loaders that make Servables (`core/servable.py`); `lookup_table/`
is the shortest one.
Not here: anything of calls, queues or ports. Start with `registry.py`.
"""
