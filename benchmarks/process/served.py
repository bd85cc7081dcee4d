"""The other end of `benchmarks.process.original`: a script for 0.2.0's interpreter.

It is run by its path, so it must not import anything of this repository before
it has imported its own `evproc`.
"""

from __future__ import annotations

import json
import platform
import signal
import sys
import traceback
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def _original() -> ModuleType:
    """Import evproc 0.2.0.

    Raises:
        ImportError: It is not there, or something else is in its place.
    """
    try:
        version = metadata.version("evproc")
    except metadata.PackageNotFoundError:
        raise ImportError("evproc 0.2.0 is not installed there") from None
    if version != "0.2.0":
        raise ImportError(f"it has evproc {version}, not 0.2.0")
    import evproc

    # both distributions in one environment overwrite each other's files
    if hasattr(evproc, "Explanation"):
        raise ImportError(f"{evproc.__file__} is not evproc 0.2.0: evproc-pool is installed there")
    return evproc


def _introduction() -> dict[str, Any]:
    packages = {}
    for name in ("stevedore", "six"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {"python": python, "packages": packages}


def _tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> int:
    """Serve requests until the input ends.

    Returns:
        The exit status: 1 if there is no evproc 0.2.0 to serve with.
    """
    # Ctrl-C reaches both processes; the other one ends this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        evproc = _original()
    except ImportError as error:
        _tell({"error": str(error)})
        return 1
    # behind everything else, and only now: there is another evproc in it
    sys.path.append(str(_ROOT))
    from benchmarks.process.cases import Case, framework
    from benchmarks.timing import Sampler

    _tell(_introduction())
    sampler: Sampler | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "case" in request:
                case = Case(**request["case"])
                namespace = framework(evproc, case)
                sampler = Sampler(case.statement, namespace, request["min_seconds"])
                _tell({"loops": sampler.loops})
            elif sampler is not None:
                _tell({"seconds": sampler()})
            else:
                _tell({"error": "no case has been asked for"})
        except Exception:
            _tell({"error": traceback.format_exc()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
