"""One encoder training as an object: its moving parts, and how they are saved and restored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from data.identity import shop_fingerprint
from data.log.shop_folder import Shop
from pretrain.methods.method import Method
from pretrain.methods.table import code_read, settings_read
from pretrain.settings import CommonConfig
from run.checkpoint import load_checkpoint, refuse_other_settings
from run.devices import restore_scaler, scaler_state

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pretrain.backbones.backbone import Backbone


@dataclass(kw_only=True)
class State:
    """The progress of a training: everything except tensors."""

    step: int = 0
    pictures: int = 0  # encoded so far
    seconds: float = 0.0
    best_gauc: float = -1.0  # of the chosen checkpoint, in validation sessions
    best_pictures: int = 0  # its number of encoded pictures
    start_gauc: float = -1.0  # before the first step


@dataclass(kw_only=True)
class Training:
    """The moving parts of one training."""

    name: str
    config: CommonConfig
    seed: int
    fabric: Fabric
    method: Method
    net: Backbone
    parts: nn.ModuleDict  # what is trained of the backbone, and the method's heads: what a checkpoint holds
    encoder: nn.Module  # what is trained of the backbone as it is run: itself or compiled
    optimizer: torch.optim.Optimizer
    settings: dict[str, str]  # see `settings_of`
    state: State = field(default_factory=State)
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of `trained` at the chosen checkpoint

    @property
    def trained(self) -> nn.Module:
        """The backbone, or its head alone if its body is frozen."""
        return self.parts["backbone"]


def prepare(name: str, net: Backbone, method: Method, shop: Shop, config: CommonConfig, *, seed: int, fabric: Fabric) -> Training:
    """A training before its first step: heads next to the backbone (a frozen body's head), one Adam over both."""
    trained = trained_part(net, config)
    method.begin(trained)
    method.heads.to(fabric.device)
    if config.recompute:
        net.body.recompute_blocks()
    optimizer = torch.optim.Adam(
        parameter_groups(method, net, frozen=config.body == "frozen"),
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
    )
    compiled: Any = torch.compile(trained) if config.compile else trained
    scaled: Any = fabric.setup_optimizers(optimizer)
    return Training(
        name=name,
        config=config,
        seed=seed,
        fabric=fabric,
        method=method,
        net=net,
        parts=nn.ModuleDict({"backbone": trained, "heads": method.heads}),
        encoder=compiled,
        optimizer=scaled,
        settings=settings_of(name, shop, config, seed),
    )


def trained_part(net: Backbone, config: CommonConfig) -> nn.Module:
    """What is trained of a backbone: all of it, or the head of a frozen body."""
    return net if config.body == "tuned" else net.head


def whole(run: Training) -> dict[str, Tensor]:
    """The backbone's weights at the chosen checkpoint, those of a frozen body too."""
    if run.config.body == "tuned":
        return run.best
    body = {f"body.{key}": value.detach().cpu() for key, value in run.net.body.state_dict().items()}
    return body | {f"head.{key}": value for key, value in run.best.items()}


def parameter_groups(method: Method, net: Backbone, *, frozen: bool = False) -> list[dict[str, Any]]:
    """The linear head and the method's own heads, which learn from the first step, and the body, which follows after `head_first`.

    `rate` is a group's multiple of the learning rate, `waits` marks the body. A body that moves while its head is still random loses
    its features (Kumar et al. 2022, arXiv:2202.10054). A frozen body does not move at all.
    """
    heads = [weight for weight in method.heads.parameters() if weight.requires_grad]
    body = [] if frozen else list(net.body.parameters())
    return [
        {"params": list(net.head.parameters()), "waits": False, "rate": method.head_rate},
        {"params": heads, "waits": False, "rate": 1.0},
        {"params": body, "waits": True, "rate": method.body_rate},
    ]


def settings_of(name: str, shop: Shop, config: CommonConfig, seed: int) -> dict[str, str]:
    """What a partial run and the run that resumes it must agree on, as text."""
    settings = {"encoder": name, "seed": str(seed), "shop": shop_fingerprint(shop.folder)}
    for key, value in settings_read(name, config).items():
        parts = {f"{key}.{inner}": part for inner, part in value.items()} if isinstance(value, dict) else {key: value}
        settings |= {setting: str(part) for setting, part in parts.items()}
    return settings | {"code": code_read(name, config, "pretrain.loop")}


def snapshot(run: Training) -> dict[str, Any]:
    """Everything a run needs to resume bit for bit."""
    return {
        "parts": run.parts.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": scaler_state(run.fabric),
        "state": asdict(run.state),
        "best": run.best,
        "settings": run.settings,
    }


def resume(run: Training, path: Path) -> bool:
    """Restore a `snapshot` if there is one; False: the run starts from the beginning.

    Raises:
        UserError: it was made with other settings.
    """
    saved = load_checkpoint(path)
    if saved is None:
        return False
    refuse_other_settings(path, saved["settings"], run.settings)
    run.parts.load_state_dict(saved["parts"])
    run.optimizer.load_state_dict(saved["optimizer"])
    restore_scaler(run.fabric, saved.get("scaler"))
    run.state, run.best = State(**saved["state"]), saved["best"]
    return True
