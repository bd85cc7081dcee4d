"""``python -m benchmarks.pictures [NAME ...]``: see `benchmarks.pictures`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.pictures.scenes import ROOT, SCENES, Scene, furnish
from benchmarks.pictures.terminal import draw, show

FOLDER: Final = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Make pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures",
        description="Draw the pictures of README.md from what commands print now.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENES))
    names = parser.parse_args(arguments).names
    for name in names or SCENES:
        if name not in SCENES:
            parser.error(f"there is no picture {name!r}: there is {', '.join(SCENES)}")
    for name in names or SCENES:
        file = FOLDER / f"{name}.svg"
        file.write_text(picture(SCENES[name]), "utf-8")
        print(file.name)
    return 0


def picture(scene: Scene) -> str:
    """Run the commands of a scene in a folder of their own, and return the SVG."""
    with tempfile.TemporaryDirectory() as working, tempfile.TemporaryDirectory() as programs:
        furnish(Path(working))
        # those of this interpreter and of this tree
        for name, begin in {"evproc": "-m evproc_pool.cli", "python": ""}.items():
            file = Path(programs, name)
            file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {begin} "$@"\n', "utf-8")
            file.chmod(0o755)
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        screen = show(
            scene.commands,
            Path(working),
            environment,
            columns=scene.columns,
            until=scene.until,
        )
        if scene.file:
            # a browser needs no document type, which is a link
            drawn = Path(working, scene.file).read_text("utf-8")
            return re.sub(r"<!DOCTYPE[^>]*>\s*", "", drawn)
        return draw(screen, scene.title, most_lines=scene.most_lines)


if __name__ == "__main__":
    sys.exit(main())
