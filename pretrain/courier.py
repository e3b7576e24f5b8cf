"""COURIER: reconstruct the next click from the pictures of earlier clicks (arXiv 2306.05001, sections 3.2-3.4).

Shapes: R rows (page views), J page items, K history items, D embedding length, M = R * J page items of the batch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.method import Step
from pretrain.page_views import PageViews
from pretrain.views import cropped, normalised
from run.randomness import permutation

_PARTS = 16  # into which groups are dealt: more would be loops without work


def reconstruct(target_RJD: Tensor, history_RKD: Tensor, present_RK: Tensor, *, scale: bool = True) -> Tensor:
    """Each target as a weighted sum of the history: R = softmax(E_pv E_click^T / sqrt(D)) E_click (Eq. 1-3).

    Embeddings enter as they are, not normalised.

    Args:
        target_RJD: (R, J, D) embeddings of page items.
        history_RKD: (R, K, D) embeddings of earlier clicks.
        present_RK: (R, K) bool, False where the history is padded; a row without history gives zeros.
        scale: divide by sqrt(D).

    Returns:
        (R, J, D), inside the simplex that the row's history spans.
    """
    weights_RJK = attention(target_RJD, history_RKD, present_RK, scale=scale)
    return weights_RJK @ history_RKD


def attention(target_RJD: Tensor, history_RKD: Tensor, present_RK: Tensor, *, scale: bool = True) -> Tensor:
    """(R, J, K) weights of the history for each target, summing to 1 over K; zeros where there is no history (Eq. 3)."""
    scores_RJK = target_RJD @ history_RKD.transpose(1, 2)
    if scale:
        scores_RJK = scores_RJK / target_RJD.shape[-1] ** 0.5
    absent_R1K = ~present_RK[:, None, :]
    weights_RJK = scores_RJK.masked_fill(absent_R1K, -torch.inf).softmax(-1)
    return weights_RJK.masked_fill(absent_R1K, 0.0)


def contrast(
    embedding_UD: Tensor,
    count_U: Tensor,
    reconstruction_CD: Tensor,
    positive_C: Tensor,
    *,
    temperature: float,
    mask_same_item: bool = False,
    group_U: Tensor | None = None,
) -> Tensor:
    """Mean contrastive loss in nats over clicked columns (Eq. 4-6, over the batch).

    Sim[j0, j1] = cos(E[j0], R[j1]);  l(j1) = -log( exp(Sim[j1, j1] / t) / sum_j0 exp(Sim[j0, j1] / t) )

    The softmax runs over E: the batch's page items, clicked or not, compete for each clicked item's reconstruction. An item that stands on
    many pages has one embedding, so that its terms of the sum are one term times their number.

    Args:
        embedding_UD: (U, D) distinct items.
        count_U: (U,) how often each stands among the candidates; 0 where it does not.
        reconstruction_CD: (C, D) reconstructions of the clicked items.
        positive_C: (C,) row of `embedding_UD` that column c should match.
        temperature: t > 0; divides the cosine.
        mask_same_item: leave the column's own item out of its negatives.
        group_U: (U,) a column's candidates are those of its own item's group; None: all of the batch.

    Raises:
        ValueError: there is no clicked column.
    """
    if len(positive_C) == 0:
        raise ValueError("a batch without a clicked item has no loss")
    unit_UD = F.normalize(embedding_UD, dim=1) / temperature
    rebuilt_CD = F.normalize(reconstruction_CD, dim=1)
    matched_C = (F.embedding(positive_C, unit_UD) * rebuilt_CD).sum(1)
    log_count_U = count_U.to(unit_UD.dtype).log()
    logits_CU = torch.addmm(log_count_U, rebuilt_CD, unit_UD.T)
    if group_U is not None:
        logits_CU = logits_CU.masked_fill(group_U[positive_C][:, None] != group_U[None, :], -torch.inf)
    total_C = logits_CU.logsumexp(1)
    if mask_same_item:  # of the own item's terms, the positive alone stays
        others_C = count_U[positive_C] - 1
        total_C = total_C + torch.log1p(-others_C * (matched_C - total_C).exp())
    return (total_C - matched_C).mean()


def contrast_within(
    embedding_UD: Tensor,
    count_U: Tensor,
    reconstruction_CD: Tensor,
    positive_C: Tensor,
    group_U: Tensor,
    *,
    temperature: float,
    mask_same_item: bool = False,
) -> Tensor:
    """`contrast` where each column's candidates are those of its own item's group, without the cost of the others.

    Args:
        group_U: (U,) integer group of each item; groups are dealt into a few parts, between which nothing is computed.
    """
    part_U = group_U % _PARTS
    place_U = torch.zeros_like(group_U, dtype=torch.long)
    total = embedding_UD.new_zeros(())
    for part in part_U.unique():
        items = (part_U == part).nonzero()[:, 0]
        columns = (part_U[positive_C] == part).nonzero()[:, 0]
        if len(columns) == 0:
            continue
        place_U[items] = torch.arange(len(items), device=items.device)
        mean = contrast(
            F.embedding(items, embedding_UD),
            count_U[items],
            F.embedding(columns, reconstruction_CD),
            place_U[positive_C[columns]],
            temperature=temperature,
            mask_same_item=mask_same_item,
            group_U=group_U[items],
        )
        total = total + mean * len(columns)
    return total / len(positive_C)


class Courier:
    """The method: L = L_pv + L_ucs (Eq. 7) over batches of page views.

    Args:
        views: the page views of the pretraining period.
        config: batch size (rows), temperature and the options of the losses.
        seed: of the order of rows.
        group: (N,) each item's group, within which clicked items and negatives compete; None: the whole batch does.
    """

    def __init__(self, views: PageViews, config: PretrainConfig, seed: int, group: np.ndarray | None = None):
        self.views, self.config, self.seed, self.group = views, config, seed, group
        self.heads = nn.Module()
        self.batch_size = min(config.batch_size, len(views))

    def step(self, number: int) -> Step:
        rows = self._rows(number)
        page, history = self.views.page[rows], self.views.history[rows]
        items, where = np.unique(np.concatenate([page.ravel(), history.ravel()]), return_inverse=True)
        if items[0] < 0:  # padding is the smallest entry: it is no picture
            items, where = items[1:], where - 1
        page_place, history_place = np.split(where, [page.size])
        places = {
            "page": page_place.reshape(page.shape),
            "history": history_place.reshape(history.shape),
            "clicked": self.views.clicked[rows],
        }
        if self.group is not None:
            places["group"] = self.group[items]
        return Step(items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return normalised(cropped(pixels, size, keys, smallest=self.config.crop))

    def loss(self, embeddings: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        page, history, clicked = (torch.as_tensor(step.places[name], device=embeddings.device) for name in ("page", "history", "clicked"))
        group = step.group(embeddings.device)
        page_loss = self._page_loss(embeddings, page, clicked, history, group)
        sequence_loss = self._sequence_loss(embeddings, history, group)
        return page_loss + sequence_loss, {"loss_pv": page_loss.detach(), "loss_ucs": sequence_loss.detach()}

    def _page_loss(self, embeddings: Tensor, page: Tensor, clicked: Tensor, history: Tensor, group: Tensor | None) -> Tensor:
        """L_pv: clicked page items against their reconstructions from the click history."""
        row, place = clicked.nonzero(as_tuple=True)
        target = page[row, place]
        return self._contrast(embeddings, page[page >= 0], target, history[row], group)

    def _sequence_loss(self, embeddings: Tensor, history: Tensor, group: Tensor | None) -> Tensor:
        """L_ucs: the last click against its reconstruction from the clicks before it; rows with one click do not enter."""
        length = (history >= 0).sum(1)
        history, last = history[length >= 2], length[length >= 2] - 1
        if len(history) == 0:
            return embeddings.sum() * 0.0
        target = history.gather(1, last[:, None])[:, 0]
        earlier = torch.arange(history.shape[1], device=history.device)[None, :] < last[:, None]
        return self._contrast(embeddings, target, target, history.where(earlier, -1), group)

    def _contrast(self, embeddings: Tensor, candidates: Tensor, target: Tensor, history: Tensor, group: Tensor | None) -> Tensor:
        """Reconstruct each target from its row of history and let it compete with the candidates; all are places in `embeddings`."""
        config = self.config
        history_CKD = F.embedding(history.clamp(min=0), embeddings)
        target_C1D = F.embedding(target[:, None], embeddings)
        rebuilt_CD = reconstruct(target_C1D, history_CKD, history >= 0, scale=config.scale_attention)[:, 0]
        count = torch.bincount(candidates, minlength=len(embeddings))
        options = {"temperature": config.temperature, "mask_same_item": config.mask_same_item}
        if group is None:
            return contrast(embeddings, count, rebuilt_CD, target, **options)
        return contrast_within(embeddings, count, rebuilt_CD, target, group, **options)

    def _rows(self, number: int) -> np.ndarray:
        """Rows of a step: one pass over a shuffled log after another, each row once a pass; a short rest is left out."""
        per_pass = len(self.views) // self.batch_size
        order = permutation(len(self.views), self.seed, "rows", number // per_pass)
        start = number % per_pass * self.batch_size
        return order[start : start + self.batch_size]
