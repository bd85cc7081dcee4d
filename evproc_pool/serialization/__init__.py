"""Objects to bytes and back.

Pickling, classes of ``__main__`` and of notebooks (by value), and errors that say which part of
an object cannot be pickled.

May import: itself, `internals`, `evproc_pool.errors`, `evproc`. Begin with `pickling`, which
pickles one object, and `packing`, which pickles many together.
"""
