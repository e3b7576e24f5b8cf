"""What `data.validate` says of a folder that can be read."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from data.validate import main
from tests.shops import Change, write_shop


@pytest.fixture
def said(tmp_path, capsys, monkeypatch):
    """A function: write a shop with changed frames, validate it without its pictures -> (exit code, what was printed)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*flags: str, folder: Path | None = None, **changes: Change | int) -> tuple[int, str]:
        folder = folder or write_shop(tmp_path / "shop", pictures=False, **changes)  # type: ignore[arg-type]
        code = main([str(folder), "--no-images", *flags])
        shown = capsys.readouterr()
        assert shown.err == ""
        return code, shown.out

    return run


def _clicks_of_events(rows: int):
    return lambda frame: pl.concat([frame.filter(pl.col("action") == "click").head(rows), frame.filter(pl.col("action") == "cart")])


@pytest.mark.parametrize(
    ("events", "source"),
    [
        (None, "impressions.parquet: there is no events.parquet"),
        (_clicks_of_events(0), "impressions.parquet: events.parquet holds no click"),
        (_clicks_of_events(1), "events.parquet: 1 in place of the 180 of impressions.parquet"),
    ],
)
def test_it_says_which_clicks_the_history_holds(said, events, source):
    _, printed = said(events_frame=events)
    assert source in next(line for line in printed.splitlines() if "click history from" in line)
