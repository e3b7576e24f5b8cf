"""A network that was trained on ImageNet and learns nothing from the shop: the encoder to beat.

EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946; without squeeze-and-excitation), whose weights come as a Python package, so that no
hub of models is needed. Its embedding is the principal components of its features.
"""

from __future__ import annotations

from dataclasses import replace

from pretrain.methods.method import Untrained
from pretrain.settings import CommonConfig

BACKBONE = "timm:tf_efficientnet_lite0"
_LEAST_SIZE = 128  # pixels a side: on smaller pictures its features say little


class ImageNet(Untrained):
    """Frozen, whatever the others' backbone is; of their settings it keeps the embedding's length, and the pictures' size if larger."""

    by_default = True

    @classmethod
    def own_config(cls, config: CommonConfig) -> CommonConfig:
        size = max(config.image_size, _LEAST_SIZE)
        return replace(
            config, backbone=BACKBONE, weights="registry", body="frozen", head="components", head_shape="linear", image_size=size,
            store_size=max(config.store_size, -(-3 * size // 2)),
        )  # fmt: skip
