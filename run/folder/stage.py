"""Cached steps of a run.

A stage is a folder named after what it depends on. It is done once `stage.json` exists; until then, whatever the folder holds is a
partial run to resume.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run.files import read_json, write_json
from run.folder.version import commit


class Stage:
    """One cached step of a run: `root/name-<hash of key>/`.

    Args:
        root: the run's folder.
        name: what the step makes, for readers; may contain slashes.
        key: everything the result depends on, as plain values; equal keys name the same folder. For a file, give a hash: the same content
            elsewhere is the same stage.
    """

    def __init__(self, root: Path, name: str, key: Mapping[str, Any]):
        text = json.dumps(key, sort_keys=True)  # a path is refused: where something is changes no result
        self.key = dict(key)
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder = Path(root) / f"{name}-{self.hash}"

    @property
    def done(self) -> bool:
        return (self.folder / "stage.json").exists()

    @property
    def result(self) -> dict[str, Any]:
        """The result passed to `finish`."""
        return read_json(self.folder / "stage.json")["result"]

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the stage as done; `result` holds its small numbers (seconds, scores)."""
        key = json.loads(json.dumps(self.key))
        write_json(self.folder / "stage.json", {"key": key, "result": dict(result), "commit": commit()})
