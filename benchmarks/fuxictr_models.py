"""FuxiCTR's DIN and BST on our inputs: its models and its training step, with batches gathered from our arrays.

Legend: I impressions, S sessions, N items, L newest history items.

A model reads user and item IDs, item, user and context columns, the query as a category, numeric columns, and each history that is not
empty as sequences: item IDs and the columns of the items, with the embeddings of the target's. Titles are not read. What our model computes
from the log (statistics, co-occurrence, match) is added as numeric features where asked for.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctr.inputs.encode import HISTORIES, Inputs
from data.log.histories import jagged
from metrics.gauc import gauc

BATCH = 256  # impressions per step
PATIENCE = 1  # epochs without a higher valid GAUC before a training ends
HIDDEN = [128, 64, 32]
LABEL = "click"


class NotUsable(Exception):
    """FuxiCTR cannot be imported, or the checkout lacks its models; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a model is given of every impression; codes are 1 or more, 0 is padding."""

    click: np.ndarray  # (I,) int8
    item: np.ndarray  # (I,) item indices
    session: np.ndarray  # (I,)
    user: np.ndarray  # (I,) user indices
    item_codes: dict[str, np.ndarray]  # feature -> (N + 1,) codes of the items; the last one is padding
    user_codes: dict[str, np.ndarray]  # feature -> (U,)
    context_codes: dict[str, np.ndarray]  # feature -> (I,)
    numbers: np.ndarray  # (I, M) float32
    histories: dict[str, np.ndarray]  # name -> (S, L) item indices, newest last, N for padding in front
    sizes: dict[str, int]  # feature -> rows of its table

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The features of some impressions (n,), as FuxiCTR's models take them."""
        found = {name: codes[self.item[rows]] for name, codes in self.item_codes.items()}
        found |= {name: codes[self.user[rows]] for name, codes in self.user_codes.items()}
        found |= {name: codes[rows] for name, codes in self.context_codes.items()}
        found |= {f"number_{place}": self.numbers[rows, place] for place in range(self.numbers.shape[1])}
        for history, items in self.histories.items():
            found |= {f"{history}_{name}": codes[items[self.session[rows]]] for name, codes in self.item_codes.items()}
        return {name: torch.from_numpy(values) for name, values in (found | {LABEL: self.click[rows].astype(np.float32)}).items()}


def features_of(inputs: Inputs, numbers: np.ndarray | None) -> Features:
    """A log's features, with our codes of values: those that the train split does not know share one.

    Args:
        numbers: (I, M') float32, numeric features besides the tables' own; None: none.
    """
    shop, sizes = inputs.shop, {}

    def coded(kind: str, columns: Any, *, pad: bool = False) -> dict[str, np.ndarray]:
        found = {}
        for place, (table, rows) in enumerate(zip(columns.tables, columns.rows, strict=True)):
            sizes[f"{kind}_{place}"] = table.size + 1
            found[f"{kind}_{place}"] = np.append(rows.astype(np.int64) + 1, [0] * pad)
        return found

    item, user, context = coded("item", inputs.items, pad=True), coded("user", inputs.users), coded("context", inputs.context)
    if inputs.queries is not None:
        context["query"], sizes["query"] = inputs.query + 1, int(inputs.query.max()) + 2
    own = [inputs.items.numeric[shop.item], inputs.users.numeric[shop.user], inputs.context.numeric]
    return Features(
        click=shop.click, item=shop.item, session=shop.session, user=shop.user, item_codes=item, user_codes=user, context_codes=context,
        numbers=np.concatenate([*own, *([] if numbers is None else [numbers])], axis=1, dtype=np.float32),
        histories={name: padded_in_front(inputs, place) for place, name in enumerate(HISTORIES) if inputs.histories[place].lengths().any()},
        sizes=sizes,
    )  # fmt: skip


def padded_in_front(inputs: Inputs, place: int) -> np.ndarray:
    """(S, L) int32 items of one history, newest last, the number of items as padding in front."""
    shop, history = inputs.shop, inputs.histories[place]
    values, lengths = jagged(history, np.arange(len(shop.session_time)), session_time=shop.session_time)
    longest = int(lengths.max())
    items = np.full((len(lengths), longest), len(shop.items), np.int32)
    items[np.arange(longest) >= longest - lengths[:, None]] = values
    return items


def load_models(checkout: Path) -> dict[str, Any]:
    """name -> class.

    Raises:
        NotUsable: something is missing.
    """
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))  # before an installed package of the same name, which may be another version
    try:
        from model_zoo.BST.src import BST
        from model_zoo.DIN.src import DIN
    except ImportError as error:
        raise NotUsable(f"{checkout}: {error}; give --fuxictr a checkout of FuxiCTR, and install requirements/peers.txt") from None
    logging.disable(logging.INFO)
    return {"DIN": DIN, "BST": BST}


def build(kind: Any, features: Features, *, learning_rate: float, size: int, regularizer: float, seed: int, **more: Any) -> Any:
    """A model with new weights.

    Args:
        kind: a class of `load_models`.
        size: numbers in every embedding.
        regularizer: L2 of the embeddings, in its loss.
        more: the model's own settings.
    """
    from fuxictr.features import FeatureMap

    known = FeatureMap("quality", tempfile.gettempdir())
    for name in (*features.item_codes, *features.user_codes, *features.context_codes):
        known.features[name] = {"type": "categorical", "source": "", "vocab_size": features.sizes[name], "padding_idx": 0}
    for place in range(features.numbers.shape[1]):
        known.features[f"number_{place}"] = {"type": "numeric", "source": ""}
    for history, items in features.histories.items():
        for name in features.item_codes:
            known.features[f"{history}_{name}"] = {
                "type": "sequence", "source": "", "vocab_size": features.sizes[name], "padding_idx": 0, "max_len": items.shape[1],
                "share_embedding": name,
            }  # fmt: skip
    known.labels, known.num_fields, known.default_emb_dim = [LABEL], len(known.features), size
    prefix = kind.__name__.lower()
    targets = [tuple(features.item_codes)] * len(features.histories)
    sequences = [tuple(f"{history}_{name}" for name in features.item_codes) for history in features.histories]
    fields = {f"{prefix}_target_field": targets, f"{prefix}_sequence_field": sequences}
    torch.manual_seed(seed)
    return kind(
        known, gpu=-1, learning_rate=learning_rate, embedding_dim=size, embedding_regularizer=regularizer or None, optimizer="adam",
        loss="binary_crossentropy", metrics=["AUC"], verbose=0, model_root=tempfile.gettempdir(), task="binary_classification",
        dnn_hidden_units=HIDDEN, dnn_activations="relu", **fields, **more,
    )  # fmt: skip


def predict(model: Any, features: Features, rows: np.ndarray) -> np.ndarray:
    """(n,) float64 click probabilities of the impressions at `rows`."""
    model.eval()
    with torch.no_grad():
        found = [model(features.batch(rows[at : at + 8 * BATCH]))["y_pred"].flatten() for at in range(0, len(rows), 8 * BATCH)]
    return torch.cat(found).double().numpy()


def train(model: Any, features: Features, rows: dict[str, np.ndarray], *, epochs: int, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Train until the GAUC of the valid split no longer rises; the best epoch's predictions.

    Args:
        rows: of train, valid and test.

    Returns:
        (n,) click probabilities of the test split, and `valid_gauc` and `epoch` of the best epoch.
    """
    random, best, test = np.random.default_rng(seed), {"valid_gauc": -1.0, "epoch": 0}, np.zeros(0)
    model._max_gradient_norm = 10.0  # its default, which `fit` sets
    valid_click, valid_session = features.click[rows["valid"]], features.session[rows["valid"]]
    for epoch in range(1, epochs + 1):
        model.train()
        order = random.permutation(rows["train"])
        for at in range(0, len(order), BATCH):
            model.train_step(features.batch(order[at : at + BATCH]))
        value = gauc(valid_click, predict(model, features, rows["valid"]), valid_session).value
        if value > best["valid_gauc"]:
            best, test = {"valid_gauc": value, "epoch": epoch}, predict(model, features, rows["test"])
        elif epoch >= best["epoch"] + PATIENCE:
            break
    return test, best
