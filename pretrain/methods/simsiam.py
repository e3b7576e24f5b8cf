"""SimSiam: one distorted view of a picture predicts the other, without negatives (Chen and He 2021, arXiv 2011.10566)."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.methods.method import Method, Outputs, Step
from pretrain.methods.two_views import distorted_view, two_views
from run.errors import SettingError
from run.randomness import keyed_init


def negative_cosine(prediction: Tensor, projection: Tensor) -> Tensor:
    """Mean of -cos(p, z) over pictures, from -1 (all alike) to 1; z is held (Chen and He 2021, Eq. 1 and 3).

    Args:
        prediction: (B, D) p, of any length; row i is one view of picture i.
        projection: (B, D) z of the other view, in the same order; no gradient goes into it.

    Raises:
        ValueError: they differ in shape.
    """
    if prediction.shape != projection.shape:
        raise ValueError(f"prediction and projection differ in shape: {tuple(prediction.shape)} and {tuple(projection.shape)}")
    return -F.cosine_similarity(prediction, projection.detach(), dim=1).mean()


class SimSiam(Method):
    """The method over the pictures shown in the pretraining period.

    The projector and the predictor take one view after the other, as in the paper's algorithm 1: batch norm sees all of the step's
    pictures, from whatever rank or piece, in one view. The paper keeps the predictor's learning rate constant, as a help that is not
    needed; here it falls with the others.

    Args:
        items: (M,) item indices of these pictures.
        config: batch size (pictures), distortion, widths of the heads.
        seed: of the order and of the heads' first weights.

    Raises:
        SettingError: the batch is one picture, of which batch norm leaves nothing.
    """

    heads: nn.ModuleDict

    def __init__(self, items: np.ndarray, config: PretrainConfig, seed: int):
        self.items, self.config, self.seed = items, config, seed
        self.head_rate, self.body_rate = config.simsiam.head_rate, config.simsiam.body_rate
        self.batch_size = min(config.batch_pictures, len(items))
        if self.batch_size < 2:
            raise SettingError("batch_pictures", self.batch_size, "simsiam's batch norm compares pictures: give at least 2")
        # embeddings are taken before the projector; both heads are dropped after training
        self.heads = nn.ModuleDict(
            {
                "projector": projector(config.dim, config.simsiam.hidden),
                "predictor": predictor(config.simsiam.hidden, config.simsiam.bottleneck),
            }
        )
        keyed_init(self.heads, seed)

    def step(self, number: int) -> Step:
        return two_views(self.items, self.batch_size, self.seed, number)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return distorted_view(pixels, keys, size, self.config.distortion)

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        first, second = (self.heads["projector"](view) for view in outputs["embedding"].chunk(2))
        predict = self.heads["predictor"]
        return (negative_cosine(predict(first), second) + negative_cosine(predict(second), first)) / 2, {}


def projector(dim: int, hidden: int) -> nn.Sequential:
    """(B, dim) -> (B, hidden) in three layers, batch norm after each; the last has no ReLU, and no scale or shift of its own."""
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False), _batch_norm(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, bias=False), _batch_norm(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, bias=False), _batch_norm(hidden, affine=False),
    )  # fmt: skip


def predictor(width: int, bottleneck: int) -> nn.Sequential:
    """(B, width) -> (B, width) through a narrow layer with batch norm; neither batch norm nor ReLU at the end."""
    return nn.Sequential(
        nn.Linear(width, bottleneck, bias=False), _batch_norm(bottleneck), nn.ReLU(inplace=True), nn.Linear(bottleneck, width)
    )


def _batch_norm(width: int, *, affine: bool = True) -> nn.BatchNorm1d:
    """Batch norm that keeps no running mean: the heads only ever see whole batches, in training."""
    return nn.BatchNorm1d(width, affine=affine, track_running_stats=False)
