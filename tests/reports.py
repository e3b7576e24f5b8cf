"""Results of a small comparison, and what a reader sees of them: the page as parsed HTML, the terminal's table as text."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
from rich.console import Console

from eval.report.report import write_report
from eval.report.table import print_table

HOSTILE = "<script>alert('x')</script>\"&|[bold](http://evil.example)"
VOID = {"meta", "img", "br"}


def metric(*per_seed):
    return {"mean": float(np.mean(per_seed)), "per_seed": list(per_seed)}


def delta(mean, low, high, p=0.01):
    return {"mean": mean, "ci95": [low, high], "p_value": p}


def row(encoder, form, gauc, valid_gauc, *, selected=False):
    return {
        "encoder": encoder,
        "image_feature": form,
        "auc": metric(0.7031, 0.7041),
        "gauc": metric(*gauc),
        "delta_auc": delta(0.0021, -0.0004, 0.0046, p=0.0953),
        "delta_gauc": delta(np.mean(gauc) - 0.68, np.mean(gauc) - 0.683, np.mean(gauc) - 0.677, p=0.0004),
        "selected": selected,
        "valid_gauc": valid_gauc,
        "seconds": {"encoder": 12.34, "ctr": 5.6},
    }


RESULTS = {
    "data": "shop",
    "preset": "small",
    "seeds": [0, 1],
    "sessions_scored": 3912,
    "sessions_one_class": 1020,
    "baseline": {"auc": metric(0.7011, 0.7013), "gauc": metric(0.6799, 0.6801)},
    "rows": [
        row("courier", "cluster_id", (0.6881, 0.6885), 0.69, selected=True),
        row("courier", "vector", (0.6891, 0.6897), 0.68),  # better on test, but not selected on validation
        row("simclr", "sim_score", (0.6811, 0.6813), 0.685, selected=True),
        row("shuffled courier", "cluster_id", (0.6795, 0.6797), 0.70, selected=True),
        row("baseline (other seeds)", "none", (0.6802, 0.6804), 0.684),
    ],
    "pairs": [
        {"a": ["courier", "cluster_id"], "b": ["simclr", "sim_score"], "delta_gauc": delta(0.0071, 0.004, 0.0102)},
    ],
    "versions": {"numpy": "2.4.6"},
    "commit": "abc1234",
    "simulated": True,
    "oracle": {"auc": 0.7511, "gauc": 0.7200},
}
CURVES = {
    "encoder courier": [{"step": s, "pictures": 64 * s, "loss": 5 / s, "valid_gauc": 0.5 + s / 100} for s in (1, 2, 3)],
    "ctr baseline": [{"step": s, "loss": 0.4, "valid_log_loss": 0.3 + 0.1 / s} for s in (10, 20)],
    "ctr courier cluster_id": [{"step": s, "loss": 0.4, "valid_log_loss": 0.3} for s in (10, 20)],
    "ctr courier vector": [{"step": s, "loss": 0.4, "valid_log_loss": 0.29} for s in (10, 20)],
}


def trained(lowest=(0.1, 0.1), highest=(2.0, 2.0), std=(0.3, 0.3), best=(900, 0, 1200), body="frozen"):
    loss = {"lowest": list(lowest), "highest": list(highest)}
    curve = {"best_pictures": list(best), "valid_gauc": [0.6] * 3, "start_gauc": [0.6] * 3}
    return {"encoder": "simclr", "loss": loss, "std": list(std), "dim": 8, "body": body, "material": "2,604 page views", **curve}


CALIBRATION = {"pcoc": 1.0, "ece": 0.01}
SOUND = {"users_scored": 900, "split_is_ordered": True, "encoders": [trained()]}


class Page(HTMLParser):
    """The text of a page and of its table rows; asserts that tags nest and that nothing external is loaded."""

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.rows, self.tags, self.curves = [], [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert (value or "").startswith("data:image/png;base64,")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_data(self, data):
        if "style" in self.open:
            return
        if "polyline" in self.open:
            self.curves.append(data)
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data + " "

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_in(folder):
    """A function from results to their page, written into `folder` and read again; it loads nothing from elsewhere."""

    def render(results=RESULTS, *, curves=CURVES, **more):
        path = folder / "report.html"
        write_report(path, results, curves=curves, **more)
        html = path.read_text()
        assert not re.search(r"https?://|url\(|@import", html.replace("http://evil.example", ""))
        return Page(html)

    return render


def printed(results, width=120):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_table(results, console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
