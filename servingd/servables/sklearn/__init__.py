"""The platform `sklearn`: fitted estimators of scikit-learn, saved by skops.

Here: how files are read (`model_files.py`), an estimator's signatures and how its inputs become
what it takes (`inputs.py`, `methods.py`), and whose calls may be merged (`row_wise.py`).
Not here: scikit-learn before a load. Start with `platform.py`.
"""
