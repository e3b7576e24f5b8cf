"""The encoders and forms that a comparison can be asked for, read from the tables that list them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain.methods.table import METHODS, is_trained
from run.source_code import code_hash

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pretrain.config import PretrainConfig

# Until the tables of methods and forms offer what follows themselves, it is derived here and nowhere else in eval/.
NO_RESULT = ("checkpoint_seconds", "keep_checkpoints", "threads", "table_sharding")  # settings of a CTR model that move no number
FORM_NAMES = ("cluster_id", "sim_score", "vector")
UNTRAINED = next(name for name in METHODS if not is_trained(name))


def default_encoders() -> tuple[str, ...]:
    """The encoders of a comparison that names none."""
    return tuple(METHODS)[:2]


def reads_clusters(form: str) -> bool:
    """True for a form whose numbers depend on how many clusters are asked for."""
    return form == "cluster_id"


def form_code(form: str) -> str:
    """A hash of the code between embeddings and predictions of a CTR model with this form ("none": the baseline)."""
    modules = ("ctr.training.loop", "eval.row_feature") if form != "none" else ("ctr.training.loop",)
    return code_hash(*modules, without=("data.source",))


def attended_history(encoder: str, config: PretrainConfig) -> int:
    """How many clicks of a history `attention_weights` weighs; 0: the encoder has no attention to show."""
    own = config.courier
    return own.history_items if encoder == "courier" and own.attention == "dot" else 0


def attention_weights(encoder: str, target: Tensor, history: Tensor, config: PretrainConfig) -> np.ndarray:
    """(K,) what an encoder's attention picked from a history: its weight on each of the (K, D) embeddings, for the (D,) target."""
    import torch

    from pretrain.methods.reconstruction import attention

    present = torch.ones(1, len(history), dtype=torch.bool)
    return attention(target[None, None], history[None], present, scale=config.courier.scale_attention)[0, 0].numpy()
