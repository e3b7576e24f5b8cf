"""The Markdown table: every row, names that cannot break it, and what speaks against the results."""

import copy
import re

from eval.report.caveats import caveats
from eval.report.table import markdown_table
from eval.report.wording import answer
from tests.reports import HOSTILE, RESULTS


def test_the_markdown_table_has_every_row_and_names_cannot_break_it():
    text = markdown_table(RESULTS)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3 + len(RESULTS["rows"])
    assert table[3] == (
        "| **courier** | **cluster_id** | **0.7036** | **+0.21 [−0.04, +0.46]** | **0.6883** | **+0.83 [+0.53, +1.13]** | **&lt;0.001** |"
    )
    assert answer(RESULTS).replace("<", "&lt;") in text
    results = copy.deepcopy(RESULTS)
    results["rows"][1]["encoder"] = HOSTILE
    line = markdown_table(results).splitlines()[6]
    assert len(re.findall(r"(?<!\\)\|", line)) == 8
    assert "<script" not in line
    assert "](" not in line


def test_the_markdown_table_says_what_speaks_against_it():
    negatives = {"per_positive": 3, "by": "popularity", "window_seconds": 86400, "missing": 0}
    results = RESULTS | {"origin": {"source": "movielens", "negatives": negatives}}
    text = markdown_table(results)
    assert text.count("\n- ") >= len(caveats(results)) > 0
    assert "- Negatives sampled: 3 per click" in text.partition("Before believing it:")[2]
