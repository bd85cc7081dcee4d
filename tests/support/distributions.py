"""Small distributions that the tests make: wheels, and what an installer unpacks from them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A distribution to make.

    Attributes:
        name: Its name; also that of its dist-info folder.
        modules: The source of each module.
        entry_points: For each group the entry points, `{name: value}`.
        version: Its version.
    """

    name: str
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    entry_points: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    version: str = "1.0"

    @property
    def dist_info(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}.dist-info"

    def files(self) -> dict[str, str]:
        """The text of each file of the wheel, by its path."""
        groups = [
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in self.entry_points.items()
        ]
        files = {f"{module}.py": source for module, source in self.modules.items()}
        metadata = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
        files[f"{self.dist_info}/METADATA"] = metadata
        files[f"{self.dist_info}/WHEEL"] = (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        files[f"{self.dist_info}/entry_points.txt"] = "\n".join(groups)
        return files

    def wheel(self, folder: Path) -> Path:
        """Write the wheel into a folder, and return its path."""
        path = folder / f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"
        record = f"{self.dist_info}/RECORD"
        lines = []
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in self.files().items():
                wheel.writestr(name, text)
                digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
                lines.append(f"{name},sha256={digest.decode().rstrip('=')},{len(text.encode())}\n")
            wheel.writestr(record, "".join(lines) + f"{record},,\n")
        return path

    def unpack(self, folder: Path) -> Path:
        """Put into a folder what installing the wheel puts there; a new one perhaps."""
        for name, text in self.files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return folder
