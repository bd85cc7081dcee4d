"""Compares what two runs have extracted, and what they report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

#: What names a run, not what was found.
_OF_A_RUN = frozenset({"id", "blob_id", "stdout", "stderr"})


def tree(folder: Path) -> dict[str, str]:
    """Describe all that is in a folder: the hash of each file, the target of each link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = f"special, mode {path.stat().st_mode:o}"
    return found


def difference(expected: dict[str, str], actual: dict[str, str]) -> str:
    """Say how two folders differ; empty if they do not."""
    for what, names in (
        ("missing", expected.keys() - actual.keys()),
        ("too much", actual.keys() - expected.keys()),
        ("other content", {each for each in expected if actual.get(each) != expected[each]}),
    ):
        if names:
            return f"{what}: {len(names)}, such as {min(names)}"
    return ""


def findings(report: Path, output: Path) -> list[str]:
    """Make what a report says comparable: no order of time, no numbers of processes, no folder."""
    results = json.loads(report.read_text(encoding="utf-8"))
    plain = [json.dumps(_plain(result), sort_keys=True) for result in results]
    return sorted(each.replace(str(output.resolve()), "OUT") for each in plain)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        # the order of a folder's entries is that of the file system
        return sorted(map(_plain, value), key=lambda each: json.dumps(each, sort_keys=True))
    if not isinstance(value, dict):
        return value
    plain = {key: _plain(each) for key, each in value.items() if key not in _OF_A_RUN}
    if "exception" in plain:  # a traceback: its last line says what it was
        plain["exception"] = plain["exception"].strip().splitlines()[-1]
    if plain.get("is_dir"):
        del plain["size"]  # it depends on what was extracted beside
    return plain
