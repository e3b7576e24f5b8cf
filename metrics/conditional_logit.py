"""Conditional logit: how much each of a few columns says of what is clicked on a page (McFadden 1974), and pages ranked by them together.

Legend: I impressions, K columns, G pages with a clicked and an unclicked impression.
"""

from __future__ import annotations

import numpy as np

_STEPS = 50  # of Newton's method at most; it takes about six
_CLOSE = 1e-9


def conditional_logit(columns: np.ndarray, click: np.ndarray, page: np.ndarray) -> np.ndarray:
    """(K,) float64 weights w under which clicks are most probable, each clicked impression among the unclicked ones of its page.

    Maximises sum_r log( exp(w x_r) / (exp(w x_r) + sum_q exp(w x_q)) ) - |w s|^2 / 2, over clicked impressions r and the unclicked ones q
    of r's page; s are the columns' standard deviations. The last term weighs as much as one impression, and bounds the weights where
    a column tells clicks perfectly. A column without variance, and all columns where no page has both kinds, get 0.

    Args:
        columns: (I, K).
        click: (I,) 0 or 1.
        page: (I,) ids.
    """
    order = np.argsort(page, kind="stable")
    x, clicked = np.asarray(columns, dtype=np.float64)[order], click[order] == 1
    number = np.cumsum(np.diff(page[order], prepend=page[order][:1]) != 0)
    both = (np.bincount(number, clicked) > 0) & (np.bincount(number, ~clicked) > 0)
    kept = both[number]
    x, clicked, number = x[kept], clicked[kept], (np.cumsum(both) - 1)[number[kept]]
    weight = np.zeros(x.shape[1])
    if not len(x):
        return weight
    spread = x.std(0)
    varies = spread > 0
    x = (x[:, varies] - x[:, varies].mean(0)) / spread[varies]
    found = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        gradient, curvature = _derivatives(x, found, clicked, number)
        step = np.linalg.solve(curvature, gradient)
        found += step / max(1.0, float(np.abs(step).max()))  # far from the maximum, Newton's step may be too long
        if np.abs(step).max() < _CLOSE:
            break
    weight[varies] = found / spread[varies]
    return weight


def _derivatives(x_IK: np.ndarray, weight_K: np.ndarray, clicked_I: np.ndarray, page_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (K,) of the objective and its negative second derivative (K, K); `page_I` counts 0 .. G - 1 in ascending order."""
    logit_I = x_IK @ weight_K
    start_G = np.flatnonzero(np.diff(page_I, prepend=-1))
    chance_I = np.exp(logit_I - np.maximum.reduceat(logit_I, start_G)[page_I])
    weighed_IK = chance_I[:, None] * x_IK
    squares_IKK = weighed_IK[:, :, None] * x_IK[:, None]
    # sums over the unclicked impressions of each page, then over those and one clicked impression
    of_page = (
        np.add.reduceat(part * ~clicked_I.reshape(-1, *[1] * (part.ndim - 1)), start_G) for part in (chance_I, weighed_IK, squares_IKK)
    )
    place_C = page_I[clicked_I]
    total_C, first_CK, second_CKK = (
        unclicked[place_C] + part[clicked_I] for unclicked, part in zip(of_page, (chance_I, weighed_IK, squares_IKK), strict=True)
    )
    mean_CK = first_CK / total_C[:, None]
    gradient_K = (x_IK[clicked_I] - mean_CK).sum(0) - weight_K
    spread_KK = (second_CKK / total_C[:, None, None]).sum(0) - mean_CK.T @ mean_CK
    return gradient_K, spread_KK + np.eye(len(weight_K))
