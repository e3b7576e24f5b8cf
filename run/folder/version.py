"""The version of the code that made a result."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

_OF_OTHERS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside git's hooks: the repository that is being committed to


@cache
def commit() -> str:
    """The commit of this code, with '+changes' if the tree differs; 'unknown' for a copy that git does not track.

    An installed copy inside some other repository (a virtual environment in a project, say) is not that repository's code.
    """
    return _commit_of(Path(__file__))


def _commit_of(file: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _OF_OTHERS} | {"GIT_OPTIONAL_LOCKS": "0"}

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=file.parent, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
