"""Reading a version's files, whatever its type.

Here: files by ranges (`source.py`), archives that are whole (`whole_files.py`), files that lie
beside a model (`sidecar_files.py`), and errors of the file system as ServingErrors
(`file_errors.py`).
Not here: what the files of one type mean. Start with `source.py`.
"""
