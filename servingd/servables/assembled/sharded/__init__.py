"""The platform `sharded`: a servable whose rows are answered by others, each for some of the keys.

Here: the file (`layout.py`), which shard has a key (`splitting.py`), one call (`call.py`), and the
type's classes (`servable.py`).
Not here: the shards; they are models of any type, of this server or of others. Start with
`layout.py`.
"""
