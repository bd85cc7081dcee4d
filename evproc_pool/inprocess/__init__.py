"""The pool without processes (``workers=0``): handlers run in the caller's thread.

May import: itself, `observe`, `core`, `serialization`, `options`, `errors`, `outcome`, `evproc`.
Begin with `calls`, which has the pool's calls; `cascade` runs one cascade. The loop over the
handlers of an event is that of `evproc.processor.run_handlers`; workers have their own, in
`worker.loop`.
"""
