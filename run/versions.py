"""Which versions of packages are installed: those that affect numbers are part of a stage's key."""

from __future__ import annotations

from contextlib import suppress
from importlib import metadata


def installed(*packages: str) -> dict[str, str]:
    """The versions of those of these packages that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
