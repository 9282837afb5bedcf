"""The commands `import ...`: serve what was laid out for another model server.

Here: how each lays its models out, and what of its settings has a counterpart. Files are linked,
never copied or changed. Not here: running the other server's own code.
"""
