"""SimSiam: one distorted view of a picture predicts the other, without negatives (Chen and He 2021, arXiv 2011.10566)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pretrain.methods.method import Method, Step
from pretrain.methods.two_views import DistortionConfig, distorted_view, two_views
from pretrain.settings import CommonConfig, MethodSettings
from run.config import positive

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data.log.shop_folder import Shop
    from pretrain.methods.method import Outputs


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig(MethodSettings):
    """SimSiam's heads and rates."""

    part = "simsiam"
    presets: ClassVar = {"paper": {"hidden": 2048, "bottleneck": 512, "head_rate": 1.0, "body_rate": 1.0}}

    hidden: int = 128  # width of the projector (2048 at Swin-T)
    bottleneck: int = 32  # width of the predictor's middle layer: a quarter of `hidden`
    head_rate: float = 0.1  # simsiam: the backbone's linear head learns at this many times the learning rate
    # simsiam: and its body at this many: hardly at all, because the initial SimCLR weights lost validation GAUC at 0.1 and more
    body_rate: float = 0.01

    def __post_init__(self):
        for name in ("hidden", "bottleneck", "head_rate", "body_rate"):
            positive(f"simsiam.{name}", getattr(self, name))


def negative_cosine(prediction: Tensor, projection: Tensor) -> Tensor:
    """Mean of -cos(p, z) over pictures, from -1 (all equal) to 1; z is held fixed (Chen and He 2021, Eq. 1 and 3).

    Args:
        prediction: (B, D) p, of any length; row i is one view of picture i.
        projection: (B, D) z of the other view, row by row; no gradient goes into it.

    Raises:
        ValueError: they differ in shape.
    """
    import torch.nn.functional as F

    if prediction.shape != projection.shape:
        raise ValueError(f"prediction and projection differ in shape: {tuple(prediction.shape)} and {tuple(projection.shape)}")
    return -F.cosine_similarity(prediction, projection.detach(), dim=1).mean()


_WHY = "batch norm compares pictures of a batch"


class SimSiam(Method):
    """The method over the pictures shown in the pretraining period.

    The projector and the predictor take one view after the other, as in the paper's algorithm 1: batch norm sees one view of all the
    step's pictures, whatever their rank or piece. The paper keeps the predictor's learning rate constant, an optional
    aid; here it falls with the others.

    Raises:
        SettingError: the batch is a single picture, which batch norm reduces to zeros.
    """

    settings = SimSiamConfig
    also_reads = (DistortionConfig,)
    frozen_views = "distorted"

    def __init__(self, items: np.ndarray, config: CommonConfig, seed: int, group: np.ndarray | None = None):
        from torch import nn

        from pretrain.needs import two_pictures_a_batch
        from run.randomness import keyed_init

        two_pictures_a_batch(config, _WHY)
        super().__init__(items, config, seed)  # nothing competes: the groups do not matter
        self.head_rate, self.body_rate = self.own.head_rate, self.own.body_rate
        # embeddings are taken before the projector; both heads are dropped after training
        self.heads = nn.ModuleDict(
            {"projector": projector(config.dim, self.own.hidden), "predictor": predictor(self.own.hidden, self.own.bottleneck)}
        )
        keyed_init(self.heads, seed)

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        from pretrain.needs import two_pictures_a_batch

        two_pictures_a_batch(config, _WHY)
        return super().check(shop, has_picture, config)

    def step(self, number: int) -> Step:
        return two_views(self.items, self.batch_size, self.seed, number)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return distorted_view(pixels, keys, size, self.config.part(DistortionConfig))

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        first, second = (self.heads["projector"](view) for view in outputs["embedding"].chunk(2))
        predict = self.heads["predictor"]
        return (negative_cosine(predict(first), second) + negative_cosine(predict(second), first)) / 2, {}


def projector(dim: int, hidden: int) -> nn.Sequential:
    """(B, dim) -> (B, hidden) in three layers, batch norm after each; the last has no ReLU, and no scale or shift of its own."""
    from torch import nn

    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False), _batch_norm(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, bias=False), _batch_norm(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, bias=False), _batch_norm(hidden, affine=False),
    )  # fmt: skip


def predictor(width: int, bottleneck: int) -> nn.Sequential:
    """(B, width) -> (B, width) through a narrow layer with batch norm; neither batch norm nor ReLU at the end."""
    from torch import nn

    return nn.Sequential(
        nn.Linear(width, bottleneck, bias=False), _batch_norm(bottleneck), nn.ReLU(inplace=True), nn.Linear(bottleneck, width)
    )


def _batch_norm(width: int, *, affine: bool = True) -> nn.BatchNorm1d:
    """Batch norm that keeps no running mean: the heads only ever see complete batches, in training."""
    from torch import nn

    return nn.BatchNorm1d(width, affine=affine, track_running_stats=False)
