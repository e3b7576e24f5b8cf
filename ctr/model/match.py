"""How a target agrees with a history: history items that share its values, and its distance from the history's mean numbers.

Legend: C matched columns, M numbers of an item, s sessions of a length bucket, P most impressions in a session, L history items,
b impressions of the bucket, B impressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctr.model.linear import put

if TYPE_CHECKING:
    from ctr.inputs.batches import Batch
    from ctr.inputs.length_buckets import BucketedHistory, LengthBucket

OF_COLUMN = ("count", "share", "recency")
NO_AGE = -1.0  # in place of an age that is not known
_NOWHERE, _PADDING = -1, -2  # codes that no value has
_OLDEST = 20.0  # log1p of 15 years in seconds: recency falls from 1 (just now) to 0


def match_size(columns: int, numbers: int) -> int:
    """How many numbers describe the match with one history."""
    return len(OF_COLUMN) * columns + numbers


def match_names(columns: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Names of a history's match."""
    return [f"{column}: {name}" for name in OF_COLUMN for column in columns] + [f"{number}: distance" for number in numbers]


def match_values(codes_sPC: Tensor, codes_sLC: Tensor, age_sL: Tensor, real_sL: Tensor | None) -> Tensor:
    """(s, P, 3C) float32: for each column log1p of how many history items share the target's value, their share, and the newest's recency.

    Recency is 1 - age / 20 with the age in log1p seconds; 0 where no item shares the value, or the age is not known. Each history is sorted
    by value, newest last among equals; a target's range in it gives count and newest. Comparing all pairs takes twice as long for ten
    targets, and 50 times as long for 500.

    Args:
        codes_sPC, codes_sLC: integers, which value a target or a history item has; 0: missing, which matches nothing.
        age_sL: log1p of seconds since each event, oldest first; NO_AGE where not known.
        real_sL: bool, False on padding; None: all are real.
    """
    wanted_sCP = codes_sPC.transpose(1, 2)
    wanted_sCP = wanted_sCP.masked_fill(wanted_sCP == 0, _NOWHERE).contiguous()
    codes_sCL = codes_sLC.transpose(1, 2)
    length_s = age_sL.new_full((len(age_sL),), age_sL.shape[1])
    if real_sL is not None:
        codes_sCL = codes_sCL.masked_fill(~real_sL[:, None], _PADDING)
        length_s = real_sL.sum(1).to(age_sL.dtype)
    sorted_sCL, place_sCL = torch.sort(codes_sCL.contiguous(), dim=-1, stable=True)
    begin_sCP, end_sCP = (torch.searchsorted(sorted_sCL, wanted_sCP, right=right) for right in (False, True))
    count_sCP = (end_sCP - begin_sCP).to(age_sL.dtype)
    share_sCP = count_sCP / length_s.clamp(min=1)[:, None, None]
    recency_sCL = ((1 - age_sL / _OLDEST).clamp(min=0) * (age_sL >= 0))[:, None].expand(sorted_sCL.shape)
    newest_sCP = place_sCL.gather(-1, (end_sCP - 1).clamp(min=0))
    recency_sCP = recency_sCL.gather(-1, newest_sCP) * (end_sCP > begin_sCP)
    return torch.cat([torch.log1p(count_sCP), share_sCP, recency_sCP], dim=1).transpose(1, 2)


def distances(numeric_sPM: Tensor, numeric_sLM: Tensor, real_sL: Tensor | None, places: Sequence[tuple[int, int]]) -> Tensor:
    """(s, P, M') float32: log1p of the distance of each of the target's numbers from its mean over the history, in deviations.

    0 where the target's number is missing, or all of the history's are.

    Args:
        numeric_sPM, numeric_sLM: standardised numbers and flags.
        real_sL: as in `match_values`.
        places: of each number and of its flag; -1: none are missing.
    """
    found = []
    for value, flag in places:
        known_sL = torch.ones_like(numeric_sLM[..., 0]) if real_sL is None else real_sL.to(numeric_sLM.dtype)
        known_sP = torch.ones_like(numeric_sPM[..., 0])
        if flag >= 0:
            known_sL, known_sP = known_sL * (1 - numeric_sLM[..., flag]), 1 - numeric_sPM[..., flag]
        count_s = known_sL.sum(1)
        mean_s = (numeric_sLM[..., value] * known_sL).sum(1) / count_s.clamp(min=1)
        distance_sP = torch.log1p((numeric_sPM[..., value] - mean_s[:, None]).abs())
        found.append(distance_sP * known_sP * (count_s > 0)[:, None])
    return torch.stack(found, dim=-1) if found else numeric_sPM[..., :0]


def history_match(batch: Batch, history: BucketedHistory, places: Sequence[tuple[int, int]]) -> Tensor:
    """(B, K): how a batch's targets agree with one history; zeros where it is empty."""
    found = [bucket_match(batch, history, bucket, places) for bucket in history.buckets]
    return put(torch.cat(found), [bucket.impression for bucket in history.buckets], len(batch.target))


def bucket_match(batch: Batch, history: BucketedHistory, bucket: LengthBucket, places: Sequence[tuple[int, int]]) -> Tensor:
    """(b, K): the match of a bucket's impressions with their histories."""
    item_sL, target_sP = history.item[bucket.item], batch.grid[bucket.session]
    matched_sPK = match_values(batch.codes[target_sP], batch.codes[item_sL], bucket.age, bucket.real)
    if places:
        far_sPM = distances(batch.item_numeric[target_sP], batch.item_numeric[item_sL], bucket.real, places)
        matched_sPK = torch.cat([matched_sPK, far_sPM], dim=-1)
    return matched_sPK[bucket.row, batch.slot[bucket.impression]]


def candidate_match(
    codes: Tensor, numeric: Tensor, candidates_C: Tensor, history_L: Tensor, age_L: Tensor, places: Sequence[tuple[int, int]]
) -> Tensor:
    """(C, K): the match of one user's candidates with a history, in which -1 is padding."""
    items, real = history_L.clamp(min=0), (history_L >= 0)[None]
    matched = match_values(codes[candidates_C][None], codes[items][None], age_L[None], real)[0]
    if not places:
        return matched
    return torch.cat([matched, distances(numeric[candidates_C][None], numeric[items][None], real, places)[0]], dim=-1)
