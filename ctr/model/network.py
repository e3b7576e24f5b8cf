"""The CTR model without its tables: histories and the MLP, the same in training and in serving (Appendix A).

Legend: B impressions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ctr.config import CtrConfig
from ctr.inputs.encode import HISTORIES, Layout, compares, is_image_table
from ctr.inputs.rules import Table
from ctr.model.adapter import new_adapter
from ctr.model.attention import HistoryNetwork
from ctr.model.linear import LinearWithImage
from ctr.model.match import match_size
from ctr.model.places import Tiers, cosines_of, impression_columns, item_columns, pair_columns, tier_edges, tiers_between
from ctr.model.similar_attention import SimilarAttention
from features.forms.form import ITEM_NUMBERS, PAIR, PAIR_ATTENTION


class Layer(nn.Linear):
    """A linear layer after a ReLU, with initial weights that keep the signal's size (He et al. 2015, arXiv:1502.01852).

    torch's default would shrink it to less than half in each layer: after five, the logits hardly depend on the input, and
    interactions of inputs (this look, that user) are not learned from a small log.
    """

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Added(nn.Linear):
    """A linear layer that begins as zero: what is added to the user's own model."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class OwnScore(nn.Module):
    """The logit of the user's own model, scaled and shifted; at first as fits the train split.

    Args:
        scale, bias: at first.
    """

    def __init__(self, scale: float, bias: float):
        super().__init__()
        self.begin = scale, bias
        self.scale, self.bias = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, self.begin[0])
        nn.init.constant_(self.bias, self.begin[1])

    def forward(self, own_logit: Tensor) -> Tensor:
        return self.scale * own_logit + self.bias


class Network(nn.Module):
    """The weights outside the tables.

    Image features enter in columns of an item, of a pair of target and history item, or of an impression (ctr/model/places.py); every other
    weight has the same name, shape and initial value in all forms.
    """

    tier_of_step: Tensor

    def __init__(self, layout: Layout, config: CtrConfig):
        super().__init__()
        self.layout, self.retrieve, self.compares = layout, config.retrieve, compares(layout, config)
        self.reads_pairs = layout.image(PAIR) is not None or layout.image(PAIR_ATTENTION) is not None  # of what attention reads
        self.cosines = cosines_of(layout, config)
        self.tier_count, of_step = tiers_between(tier_edges(layout, config))
        self.register_buffer("tier_of_step", of_step, persistent=False)
        text = config.token_size
        numbers = layout.image(ITEM_NUMBERS)
        self.image_adapter = None if numbers is None else new_adapter(config.adapter, numbers.size, config.width)
        self.image_id = nn.Linear(layout.unit, config.id_size) if layout.pictured and config.id_start != "none" else None
        item = _size(layout.item, layout.item_numeric) + text * layout.titles
        sizes: dict[str, Any] = {name: getattr(config, name) for name in ("width", "heads", "pooling", "score_place", "windows")}
        sizes["order"] = config.history_order
        most = dict(zip(HISTORIES, (config.click_items, config.purchase_items, config.cart_items), strict=True))
        columns = item_columns(layout, config), pair_columns(layout)
        self.histories = nn.ModuleDict(
            {name: HistoryNetwork(item, *columns, most=most[name], similar=_similar(layout, config), **sizes) for name in HISTORIES}
        )
        user = _size(layout.user, layout.user_numeric) + len(HISTORIES) * config.width * (1 + len(config.windows))
        user += layout.log_numbers + (len(HISTORIES) * match_size(layout.matched, len(layout.distances)) if layout.matched else 0)
        other = text * layout.queries + _size(layout.context, layout.context_numeric)
        image = item_columns(layout, config) + impression_columns(layout, config)
        self.first = LinearWithImage(user + item + other, image, config.hidden[0])
        self.hidden = nn.ModuleList(Layer(a, b) for a, b in zip(config.hidden, config.hidden[1:], strict=False))
        self.logit = Added(config.hidden[-1], 1) if layout.own_score else nn.Linear(config.hidden[-1], 1)
        self.own = OwnScore(*layout.own_line) if layout.own_score else None

    @property
    def tiers(self) -> Tiers:
        """Of cosines."""
        return Tiers(self.tier_count, self.tier_of_step)

    def known_by_picture(self, id_UE: Tensor, row_U: Tensor, unit_UD: Tensor | None, present_U: Tensor) -> Tensor:
        """(U, E) embeddings of IDs; to that of unknown ones (row 0) is added what their pictures say of them."""
        if self.image_id is None or unit_UD is None:
            return id_UE
        unknown_U1 = ((row_U == 0) & present_U)[:, None]
        return id_UE + self.image_id(unit_UD) * unknown_U1

    def mlp(self, parts: list[Tensor], images: list[Tensor], own_logit: Tensor | None = None) -> Tensor:
        """(B,) logits.

        Args:
            parts: (B, n) each: user, histories, target item, query where there is one, context.
            images: (B, n) each: the target's own image features, and those of histories; none in the baseline.
            own_logit: (B,) the user's own model's, or None.
        """
        x = self.first(torch.cat(parts, dim=1), torch.cat(images, dim=1) if images else None)
        for layer in self.hidden:
            x = layer(torch.relu(x))
        logit = self.logit(torch.relu(x))[:, 0]
        return logit if self.own is None or own_logit is None else logit + self.own(own_logit)


def _similar(layout: Layout, config: CtrConfig) -> SimilarAttention | None:
    """The attention of a form that has one of its own; one for each history."""
    if layout.image(PAIR_ATTENTION) is None:
        return None
    return SimilarAttention(config.width, config.heads, place=config.similarity_place, tiers=config.tiers)


def _size(tables: tuple[Table, ...], numeric: int) -> int:
    return sum(table.dim for table in tables if not is_image_table(table.name)) + numeric
