"""Settings that all encoders share, and the base class of a method's settings. pretrain/config.py puts the two together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pretrain.backbones.names import HEAD_SHAPES, NAMED_WEIGHTS, check_backbone, is_timm
from run.config import one_of, positive
from run.errors import SettingError

# settings that say only how a run proceeds: they change no result, except for the last digits of sums
PACE = ("checkpoint_seconds", "chunk", "recompute", "compile")
TUNED_ONLY = ("body_rate", "crop")  # settings of methods that a frozen body does not read
Part = TypeVar("Part")


class MethodSettings:
    """The settings of one method, or of several: base of a frozen keyword-only dataclass in the method's file.

    The comment next to a field is its flag's help text.
    """

    part: ClassVar[str]  # their name: the field of PretrainConfig, the table in a recipe, the prefix of their flags
    plain_flags: ClassVar[bool] = False  # their flags have no prefix: --temperature, not --courier.temperature
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # preset -> the settings that it changes

    def check(self, common: CommonConfig) -> None:
        """Refuse settings that do not fit those of all encoders.

        Raises:
            SettingError: names the setting.
        """


@dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """How an encoder is trained. Every encoder of a comparison gets the same backbone, pictures and checkpoints."""

    backbone: str = "small_cnn"  # small_cnn | timm:NAME | a torchvision classifier: resnet18, swin_t (the paper's), ...
    # initial weights of the body, the same for every encoder: pictures (the initial encoder: SimCLR on the shop's own pictures, since a
    # small backbone has no ImageNet weights) | imagenet (timm's or torchvision's download) | registry (of an installed package, for
    # timm:tf_efficientnet_lite0, 1 and 2) | random | a file of weights for the backbone
    weights: str = "pictures"
    start_pictures: int = 400_000  # pictures encoded in the training of the initial encoder; read only with `weights` "pictures"
    # tuned: all of the backbone is trained | frozen: its body stays as it is, the features of all pictures are computed once, and only
    # the head is trained, on them: thousands of page views a second on a CPU
    body: str = "tuned"
    cached_views: int = 4  # distorted views of each picture whose features are computed; for methods that compare views of a frozen body
    # what of the body the head is given: last (what its classifier was given) | stages (beside it, of every stage's feature map, each
    # channel's mean and deviation: they keep colour and texture; timm:NAME only; a head of `components` begins with the layers that rank
    # best in validation)
    features: str = "last"
    # linear | mlp (beside a linear part) | residual (an MLP on a linear part, through a gate); each begins as its linear part
    head_shape: str = "linear"
    # initial weights of the head's linear part: given (the head that comes with the body's weights, or a new one, as in the paper) |
    # whitened (principal components of the pictures' features, scaled alike) | components (the same, not scaled: cosines are those of the
    # features)
    head: str = "given"
    centre: bool = True  # subtract the part that all embeddings share before they are compared, in validation and features
    image_size: int = 32  # side in pixels of the pictures that the backbone sees
    store_size: int = 48  # side in pixels of the stored pictures; at least 1.5 x image_size, to leave detail for random crops
    dim: int = 64  # length of an embedding
    pictures: int = 300_000  # pictures encoded in the full training, the same for every encoder
    checkpoints: int = 10  # how often it is validated and may be chosen, evenly spaced
    # pictures of a step, for methods that learn from pictures and not from page views; those that compare two views encode each twice
    batch_pictures: int = 1024
    learning_rate: float = 3e-3  # Adam's, at its peak
    beta2: float = 0.95  # decay of Adam's second moment; at this value, trainings of a few hundred steps forget their first ones
    warmup: float = 0.1  # share of the training in which the rate rises from 0; it then falls along a cosine
    head_first: float = 0.06  # share of the training in which only linear heads learn, before the body follows
    weight_decay: float = 1e-6  # Adam's
    # leave the target's own item out of a click's negatives and of the SimScore used in validation: needed in a small catalogue
    mask_same_item: bool = True
    # whose pictures compete in a contrast across pages: batch (all) | category (those of the picture's own category: the paper pre-trains
    # on one category alone, so distinguishing categories earns nothing there; a shop without categories is one)
    negatives: str = "category"
    valid_history: int = 50  # newest clicks whose cosines make the SimScore used in validation
    precision: str = "32-true"  # Lightning Fabric's names: 32-true | bf16-mixed | 16-mixed
    # pictures that go through the backbone at once; more of them in a step are encoded twice (gradient caching): the same gradients in
    # bounded memory; 0: all at once
    chunk: int = 0
    recompute: bool = False  # recompute the backbone's blocks in the backward pass, instead of keeping their activations
    compile: bool = False  # let torch.compile fuse the backbone
    checkpoint_seconds: float = 30.0  # between saves of the state, from which a killed run resumes

    def __post_init__(self):
        for name in (
            "image_size", "dim", "pictures", "start_pictures", "checkpoints", "batch_pictures", "learning_rate", "valid_history",
            "checkpoint_seconds",
        ):  # fmt: skip
            positive(name, getattr(self, name))
        check_backbone("backbone", self.backbone)
        one_of("body", self.body, ("frozen", "tuned"))
        one_of("features", self.features, ("last", "stages"))
        if self.features == "stages" and not is_timm(self.backbone):
            raise SettingError(
                "features", "stages", f"only timm's networks show their stages, and the backbone is {self.backbone}: give last"
            )
        one_of("head_shape", self.head_shape, HEAD_SHAPES)
        one_of("head", self.head, ("given", "whitened", "components"))
        if self.cached_views < 2:
            raise SettingError("cached_views", self.cached_views, "two views of a picture are compared: give 2 or more")
        for name in ("weight_decay", "chunk"):
            if getattr(self, name) < 0:
                raise SettingError(name, getattr(self, name), "give 0 or more")
        if self.store_size < 1.5 * self.image_size:
            raise SettingError("store_size", self.store_size, f"give at least 1.5 x image_size = {-(-3 * self.image_size // 2)}")
        one_of("negatives", self.negatives, ("batch", "category"))
        one_of("precision", self.precision, ("32-true", "bf16-mixed", "16-mixed"))
        for name in ("warmup", "head_first", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "give a share from 0 up to but not 1")
        if self.warmup + self.head_first >= 1:
            raise SettingError("head_first", self.head_first, f"warmup {self.warmup} and head_first together must stay below 1")
        for value in (getattr(self, field.name) for field in fields(self)):
            if isinstance(value, MethodSettings):
                value.check(self)

    def resolved(self) -> Self:
        """The same settings with absolute paths, for a run folder's config.toml."""
        return self if self.weights in NAMED_WEIGHTS else replace(self, weights=str(Path(self.weights).absolute()))

    def part(self, kind: type[Part]) -> Part:
        """The settings of this class; its defaults if the config has none."""
        found = (getattr(self, field.name) for field in fields(self))
        return next((value for value in found if type(value) is kind), None) or kind()

    def with_part(self, name: str, settings: Any) -> CommonConfig:
        """The same settings and one more part: that of a user's method."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        own = (name, type(settings), dataclass_field(default=settings))
        return make_dataclass(type(self).__name__, [own], bases=(type(self),), frozen=True, kw_only=True)(**values)


def share(setting: str, value: float) -> None:
    """Refuse a value outside (0, 1]."""
    if not 0 < value <= 1:
        raise SettingError(setting, value, "give a share above 0 and up to 1")
