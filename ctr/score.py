"""Score one user's candidates without a server: python -m ctr.score --export DIR --request FILE.json.

In Python: `from ctr.score import Scorer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctr.serving.scorer import Scorer as Scorer  # the library's name for what this command does
from ctr.serving.scorer import ScoreResult as ScoreResult
from run.config import parse
from run.errors import SettingError, entry


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Settings of scoring one request."""

    export: Path = Path("runs/export")  # folder that ctr.export wrote
    request: Path = Path("request.json")  # one request; docs/serving.md says what it holds. Paths of pictures are relative to its folder
    threads: int = 1  # CPU threads; 0: torch's choice

    def __post_init__(self):
        if self.threads < 0:
            raise SettingError("threads", self.threads, "give 0 or more")


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, score one request, print items and probabilities as JSON."""
    config = parse(
        ScoreConfig, argv, prog="python -m ctr.score",
        description="Click probabilities of one user's candidates, which may be new and have new pictures; no server is needed.",
    )  # fmt: skip
    import json
    from dataclasses import asdict

    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    answer = asdict(Scorer.load(config.export).score_file(config.request))
    print(json.dumps(answer | {"probabilities": answer["probabilities"].tolist()}))


if __name__ == "__main__":
    raise SystemExit(main())
