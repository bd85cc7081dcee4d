"""All uses of what other libraries do not document: one module for each library.

Each module lists its internals. For each it states the versions with which it was checked, the
fallback if the internal is missing, and what a free-threaded build of CPython would break.
``tests/evproc_pool/test_internals.py`` has a canary for each internal, and tests each fallback.
The canary fails when an internal changes its meaning.

Used elsewhere, since they have public names, though no documentation:
`multiprocessing.util.Finalize` (`pool`), `multiprocessing.reduction.DupFd` (`ipc.descriptors`),
`multiprocessing.forkserver.ensure_running` (`backends.local.start_methods`). They have canaries,
and no fallback: an import error names them.

May import: nothing of this package. Nothing is imported here, so that a program pays only for
the modules that it needs.
"""
