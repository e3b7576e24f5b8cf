"""The table in the terminal: every row, at any width, whatever the names are."""

import copy
import io
import re

import pytest
from rich.console import Console

from eval.report.table import print_table
from eval.report.wording import SIMULATED
from tests.reports import RESULTS, printed


def test_the_terminal_table_has_every_row_within_120_columns():
    lines = printed(RESULTS).splitlines()
    assert max(map(len, lines)) <= 120
    line = next(line for line in lines if line.startswith("courier") and "cluster_id *" in line)
    cells = re.split(r"\s{2,}", line.strip())
    assert cells[2:] == ["0.7036", "+0.21 [−0.04, +0.46]", "0.6883", "+0.83 [+0.53, +1.13]", "<0.001"]
    for expected in RESULTS["rows"]:
        assert any(line.startswith(expected["encoder"]) and expected["image_feature"] in line for line in lines)
    assert any(SIMULATED[:60] in line for line in lines)


def test_a_name_that_cannot_be_encoded_is_printed_escaped():
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["encoder"] = "file:wörter-\udcff-字.npy"
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")  # as in every command
    print_table(results, Console(file=out, width=120, force_terminal=False))
    out.flush()
    assert rb"file:w\xf6rter-\udcff" in raw.getvalue().replace(b"\n", b"")


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_narrow_terminal_loses_no_number(width):
    text = "".join(printed(RESULTS, width).split())
    assert "percentagepoints(pp)" in text
    assert max(map(len, printed(RESULTS, width).splitlines())) <= width


def test_the_terminal_table_reads_no_name_as_markup():
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["encoder"] = "[red]file:x[/red]"
    assert "[red]file:x[/red]" in printed(results)
