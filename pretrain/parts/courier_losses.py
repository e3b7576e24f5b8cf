"""COURIER's losses: each clicked picture against its reconstruction, as a contrast, a hinge, or pulled together (arXiv 2306.05001).

Shapes: U distinct items, C clicked columns, D embedding length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PARTS = 16  # that groups are divided into: more would only add loop overhead


def contrast(
    embedding_UD: Tensor,
    count_U: Tensor,
    reconstruction_CD: Tensor,
    positive_C: Tensor,
    *,
    temperature: float,
    mask_same_item: bool = False,
    symmetric: bool = False,
    group_U: Tensor | None = None,
) -> Tensor:
    """Mean contrastive loss in nats over clicked columns (Eq. 4-6, over the batch).

    Sim[j0, j1] = cos(E[j0], R[j1]);  l(j1) = -log( exp(Sim[j1, j1] / t) / sum_j0 exp(Sim[j0, j1] / t) )

    The softmax runs over E: the batch's page items, clicked or not, compete for each clicked item's reconstruction. An item that is on
    many pages has one embedding, so that its terms of the sum are one term times their number.

    Args:
        embedding_UD: (U, D) distinct items.
        count_U: (U,) how often each is among the candidates; 0 for none.
        reconstruction_CD: (C, D) reconstructions of the clicked items.
        positive_C: (C,) row of `embedding_UD` that column c should match.
        temperature: t > 0; divides the cosine.
        mask_same_item: leave the column's own item out of its negatives.
        symmetric: the mean of this loss and of the other direction, in which the columns' reconstructions compete for each clicked item.
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
    other_group_CU = None if group_U is None else group_U[positive_C][:, None] != group_U[None, :]
    if other_group_CU is not None:
        logits_CU = logits_CU.masked_fill(other_group_CU, -torch.inf)
    total_C = logits_CU.logsumexp(1)
    if mask_same_item:  # of the item's own terms, only the positive stays
        others_C = count_U[positive_C] - 1
        total_C = total_C + torch.log1p(-others_C * (matched_C - total_C).exp())
    loss = (total_C - matched_C).mean()
    if not symmetric:
        return loss
    total_C = _over_columns(unit_UD, rebuilt_CD, matched_C, positive_C, other_group_CU, mask_same_item=mask_same_item)
    return (loss + (total_C - matched_C).mean()) / 2


def _over_columns(
    unit_UD: Tensor, rebuilt_CD: Tensor, matched_C: Tensor, positive_C: Tensor, absent_CU: Tensor | None, *, mask_same_item: bool
) -> Tensor:
    """(C,) log of the sum of exp(Sim / t) of each column's item with all columns' reconstructions, once for each distinct item."""
    clicked_V, place_C = positive_C.unique(return_inverse=True)
    logits_CV = rebuilt_CD @ F.embedding(clicked_V, unit_UD).T
    absent_CV = torch.zeros_like(logits_CV, dtype=torch.bool) if absent_CU is None else absent_CU[:, clicked_V]
    if mask_same_item:
        absent_CV = absent_CV | (place_C[:, None] == torch.arange(len(clicked_V), device=place_C.device))
    total_V = logits_CV.masked_fill(absent_CV, -torch.inf).logsumexp(0)
    return torch.logaddexp(total_V[place_C], matched_C) if mask_same_item else total_V[place_C]


def contrast_within(
    embedding_UD: Tensor,
    count_U: Tensor,
    reconstruction_CD: Tensor,
    positive_C: Tensor,
    group_U: Tensor,
    *,
    temperature: float,
    mask_same_item: bool = False,
    symmetric: bool = False,
) -> Tensor:
    """`contrast` where each column's candidates are those of its own item's group, without the cost of the others.

    Args:
        group_U: (U,) integer group of each item; groups are divided into a few parts, and nothing is computed between parts.
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
            symmetric=symmetric,
            group_U=group_U[items],
        )
        total = total + mean * len(columns)
    return total / len(positive_C)


def contrast_rows(
    positive_CD: Tensor,
    other_CJD: Tensor,
    present_CJ: Tensor,
    reconstruction_CD: Tensor,
    *,
    temperature: float,
    ahead_CJ: Tensor | None = None,
) -> Tensor:
    """Mean contrastive loss in nats where every column has candidates of its own.

    Args:
        positive_CD: (C, D) clicked items.
        other_CJD: (C, J, D) the items that each competes with.
        present_CJ: (C, J) bool; False is padding.
        reconstruction_CD: (C, D) reconstructions of the clicked items.
        temperature: t > 0; divides the cosine.
        ahead_CJ: (C, J) how far each candidate is ahead of the clicked item by what is known without pictures, as a logit.
    """
    rebuilt_CD = F.normalize(reconstruction_CD, dim=1) / temperature
    matched_C = (F.normalize(positive_CD, dim=1) * rebuilt_CD).sum(1)
    others_CJ = torch.einsum("cjd,cd->cj", F.normalize(other_CJD, dim=2), rebuilt_CD)
    if ahead_CJ is not None:
        others_CJ = others_CJ + ahead_CJ
    others_CJ = others_CJ.masked_fill(~present_CJ, -torch.inf)
    return (torch.cat([matched_C[:, None], others_CJ], 1).logsumexp(1) - matched_C).mean()


def hinge(embedding_CD: Tensor, reconstruction_CD: Tensor, other_C: Tensor, *, margin: float) -> Tensor:
    """Mean hinge loss over clicked columns (Appendix F): max(0, Sim[j0, j1] - Sim[j0, j0] + m) with one mismatched reconstruction j1 each.

    Args:
        embedding_CD: (C, D) clicked items.
        reconstruction_CD: (C, D) their reconstructions.
        other_C: (C,) the column whose reconstruction is the mismatched one; a column that names itself does not count.
        margin: m, in cosines.
    """
    unit_CD, rebuilt_CD = F.normalize(embedding_CD, dim=1), F.normalize(reconstruction_CD, dim=1)
    own_C = (unit_CD * rebuilt_CD).sum(1)
    mismatched_C = (unit_CD * F.embedding(other_C, rebuilt_CD)).sum(1)
    counted_C = other_C != torch.arange(len(other_C), device=other_C.device)
    return (F.relu(mismatched_C - own_C + margin) * counted_C).sum() / counted_C.sum().clamp(min=1)


def pull(embedding_CD: Tensor, reconstruction_CD: Tensor) -> Tensor:
    """1 - mean cosine of clicked items and their reconstructions, "w/o contrast" of Table 6.

    As in SimSiam, one side is held fixed (here the reconstruction): if both moved, all embeddings would soon collapse into one.
    """
    return 1 - F.cosine_similarity(embedding_CD, reconstruction_CD.detach(), dim=1).mean()
