"""Objects to bytes and back.

Pickling, pickling by value (for classes of ``__main__`` and of notebooks), and errors that name the
part of an object that cannot be pickled.

May import: itself, `internals`, `errors`, `log`, `evproc`. Begin with
`pickling`, which pickles one object, and `packing`, which pickles many together.
"""
