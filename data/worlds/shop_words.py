"""Words of the `shop` world: what its things are called, made of and searched by. No word depends on style."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One category."""

    names: tuple[str, ...]  # in titles and queries
    materials: tuple[str, ...]
    price: float  # median


THINGS: dict[str, Thing] = {
    "tee": Thing(names=("tee", "t-shirt"), materials=("cotton", "organic cotton", "linen blend", "jersey"), price=24),
    "dress": Thing(names=("dress", "day dress"), materials=("cotton", "viscose", "linen", "crepe"), price=59),
    "trousers": Thing(names=("trousers", "pair of trousers"), materials=("cotton", "denim", "wool blend"), price=54),
    "skirt": Thing(names=("skirt",), materials=("cotton", "viscose", "wool blend", "twill"), price=42),
    "bag": Thing(names=("bag", "handbag"), materials=("leather", "vegan leather", "canvas", "raffia"), price=79),
    "shoe": Thing(names=("shoes", "pair of shoes"), materials=("leather", "suede", "canvas", "knit"), price=88),
    "hat": Thing(names=("hat",), materials=("wool felt", "straw", "cotton", "paper braid"), price=32),
    "lamp": Thing(names=("lamp", "table lamp"), materials=("linen and oak", "cotton and brass", "paper"), price=69),
    "mug": Thing(names=("mug", "coffee mug"), materials=("stoneware", "porcelain", "enamel"), price=14),
    "chair": Thing(names=("chair",), materials=("velvet and oak", "wool and beech", "cotton and steel"), price=189),
    "watch": Thing(names=("watch", "wrist watch"), materials=("steel", "leather and steel", "nylon"), price=129),
    "cushion": Thing(names=("cushion", "sofa cushion"), materials=("cotton", "linen", "velvet", "wool"), price=27),
}
LATE_THING = "cushion"  # added in the middle of the log

BRANDS = (
    "Norvik", "Alder & Finch", "Casa Lumo", "Harrow", "Mirabel", "Ostro", "Pippin", "Quill",
    "Saltmarsh", "Tamsin Grey", "Umbra Lane", "Vela", "Wrenfield", "Yarrow", "Zephyr Row", "Brindle",
)  # fmt: skip

TAILS = (
    "for every day", "new arrival", "gift boxed", "made in Portugal", "small batch", "with care card",
    "members' choice", "sold by one", "recycled packaging", "two-year promise",
)  # fmt: skip
