"""Backends start workers and move frames. Each implements `evproc_pool.protocol.backend`.

Local processes are in `local`. A backend for Dask or Ray would stand beside it.
"""
