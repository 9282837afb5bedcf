"""The platform `lookup_table`: a CSV, JSON or Parquet file as a version; it answers keys with rows.

Here: what a table is (`schema.py`), its files as batches of cells (`csv_file.py`, `json_file.py`,
`parquet_file.py`), its rows in memory (`strings.py`, `store.py`), and the servable.
Not here: TensorFlow, of which none is needed or imported. Start with `platform.py`.
"""
