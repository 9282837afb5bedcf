"""The servable types: what a version's folder means, and how it is loaded and run.

Here: the registry of types, and one package or module per type: `lookup_table/`, `onnx/`,
`sklearn/`, `saved_model/`, which loads `tflite/` models too, `keras/`, which makes SavedModels, and
those that call other servables or other people's code. The rest is shared: TensorFlow's import and
process-wide state (`tensorflow_runtime/`), made-up inputs, files beside a model, errors of files. A
type is a Platform that makes Loaders that make Servables (`core/servable.py`); `plugin.py` has
their base classes, and the shortest one.
Not here: anything of calls, queues or ports. Start with `registry.py`.
"""
