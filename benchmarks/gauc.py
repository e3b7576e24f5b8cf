"""GAUC of ten million impressions in sessions of ten: ours and TorchRec's, on the same predictions.

python benchmarks/gauc.py [--quick]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the impressions and fewer rounds")
    quick = parser.parse_args().quick

    import torch
    from torchrec.metrics.gauc import get_auc_states

    from benchmarks.side_by_side import in_turn, line, show
    from metrics.gauc import gauc

    sessions = 100_000 if quick else 1_000_000
    rng = np.random.default_rng(0)
    session = np.repeat(np.arange(sessions), 10)
    click = (rng.random(len(session)) < 0.15).astype(np.float32)
    score = (rng.normal(size=len(session)) + 0.5 * click).astype(np.float32)  # ties are rare: TorchRec breaks them by position
    lengths = torch.full((sessions,), 10)
    predictions, labels = torch.from_numpy(score)[None], torch.from_numpy(click)[None]
    weights = torch.ones_like(labels)

    def ours() -> float:
        return gauc(click, score, session).value

    def peer() -> float:
        states = get_auc_states(labels, predictions, weights, lengths)  # pyright: ignore[reportCallIssue] - its wrapper hides its parameters
        return float(states["auc_sum"] / states["num_samples"])

    if abs(ours() - peer()) > 1e-5:
        sys.exit(f"the two disagree: {ours()} and {peer()}")
    fast, slow = in_turn(ours, peer, rounds=3 if quick else 5)
    millions = len(session) / 1e6
    show([line("gauc 1e7 vs torchrec", millions / fast, millions / slow, "million impressions/s", higher_is_better=True)])


if __name__ == "__main__":
    main()
