"""The pool without processes (``workers=0``): everything runs here, in the caller's thread.

May import: itself, `core`, `serialization`, `evproc_pool.errors`, `evproc_pool.outcome`, `evproc`.
Begin with `calls`, which has the pool's calls; `cascade` runs one cascade.
"""
