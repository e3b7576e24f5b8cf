"""The paper's results (COURIER, arXiv 2306.05001), to compare with those measured here. The names are those of its table."""

from __future__ import annotations

from dataclasses import dataclass

from eval.report.wording import Results

ENOUGH = 3  # encoders of the paper in one table before its numbers get a column


@dataclass(frozen=True, kw_only=True)
class Published:
    """Lifts over the paper's baseline, as fractions."""

    auc_womens: float  # AUC in women's clothing, the category of its pre-training
    auc: float
    gauc: float


# Table 5: a day of Taobao's log, 0.7785 / 0.8033 / 0.7355 without pictures
TABLE_5 = {
    "supervised": Published(auc_womens=0.0006, auc=-0.0014, gauc=-0.0006),
    "clip": Published(auc_womens=0.0026, auc=0.0004, gauc=-0.0009),
    "simclr": Published(auc_womens=0.0028, auc=0.0005, gauc=-0.0008),
    "simsiam": Published(auc_womens=0.0010, auc=-0.0010, gauc=-0.0029),
    "maskclip": Published(auc_womens=0.0031, auc=0.0003, gauc=-0.0003),
    "courier": Published(auc_womens=0.0046, auc=0.0016, gauc=0.0019),
}


def has_published(results: Results) -> bool:
    """True if enough of the paper's encoders are in a table for its numbers to be worth a column."""
    return len({row["encoder"] for row in results["rows"]} & set(TABLE_5)) >= ENOUGH
