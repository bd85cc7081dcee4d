"""A pool gives others on the machine no access, and takes nothing from them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from evproc_pool import PoolProcessor
from evproc_pool.testing import worker_pids
from tests.support.actions import Do
from tests.support.helpers import run_script, warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def _targets(pid: int) -> dict[Path, str]:
    """The descriptors of a process, and the files that they are open on."""
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this very listing
            found[descriptor] = str(descriptor.readlink())
    return found


def _listening(pid: int) -> set[str]:
    """The sockets on which a process listens."""
    unix = _lines("unix")
    sockets = {f"socket:[{line[6]}]" for line in unix if int(line[3], 16) & _ACCEPTS}
    for name in ("tcp", "tcp6"):
        sockets |= {f"socket:[{line[9]}]" for line in _lines(name) if line[3] == _LISTEN}
    return sockets.intersection(_targets(pid).values())


# https://docs.kernel.org/networking/proc_net_tcp.html; flags and states of sockets
_ACCEPTS = 1 << 16
_LISTEN = "0A"


def _lines(name: str) -> list[list[str]]:
    path = Path(f"/proc/net/{name}")
    text = path.read_text("utf-8") if path.exists() else ""
    return [line.split() for line in text.splitlines()[1:]]


def test_no_process_listens_on_a_socket(pool: PoolProcessor) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert _listening(os.getpid()), "it would be seen"
    before = _listening(os.getpid())
    for pid in warm(pool):
        assert _listening(pid) == set()
    assert _listening(os.getpid()) == before


def test_shared_files_have_no_name_and_are_for_this_user_only(pool: PoolProcessor) -> None:
    # standard output may be a file of any name
    before = {target for target in _targets(os.getpid()).values() if "memfd:" not in target}
    warm(pool)
    pool.process(Do("stop", bytes(1_000_000)))
    shared = 0
    for pid in (os.getpid(), *worker_pids(pool)):
        for descriptor, target in _targets(pid).items():
            if "evproc_pool" not in target or target in before:
                continue
            shared += 1
            assert target == "/memfd:evproc_pool (deleted)"
            assert stat.S_IMODE(descriptor.stat().st_mode) == 0o600
    assert shared >= 2 * 3  # for each worker: words, stacks, and the memory


_FEW_DESCRIPTORS = """
import resource
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

pool = PoolProcessor(workers=64)
pool.register(act)
pool.process(Do("nothing"))
pool.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
with PoolProcessor(workers=64) as pool:
    pool.register(act)
    values = pool.process_many([Do("stop", number) for number in range(200)])
    print(values == list(range(200)), 0 < len(pool._engine.pids()) < 64)
"""


def test_if_descriptors_run_out_the_started_workers_do_the_work(tmp_path: Path) -> None:
    assert run_script(_FEW_DESCRIPTORS, tmp_path) == "True True\n"
