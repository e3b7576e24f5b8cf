"""The paper's CTR model with the weights of a `CtrModel`: one impression at a time, nothing shared, nothing padded."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.inputs.encode import EncodedColumns, Inputs, is_image_table
from ctr.model.ctr_model import CtrModel
from data.log.histories import History
from data.log.shop_folder import Shop


def naive_logits(model: CtrModel, inputs: Inputs, rows: list[int]) -> Tensor:
    """(len(rows),) logits of impressions."""
    return torch.stack([_logit(model, inputs, row) for row in rows])


def window_of(history: History, shop: Shop, session: int) -> list[int]:
    """The items of one session's history, oldest first."""
    return [int(history.item[k]) for k in places_of(history, shop, session)]


def places_of(history: History, shop: Shop, session: int) -> list[int]:
    """The places of one session's events, oldest first."""
    places = range(history.start[session], history.end[session])
    return [k for k in places if history.gone is None or history.gone[k] >= shop.session_time[session]]


def _logit(model: CtrModel, inputs: Inputs, row: int) -> Tensor:
    shop = inputs.shop
    session, target = int(shop.session[row]), int(shop.item[row])
    parts = [_columns(model, inputs.users, int(shop.user[row]))]
    parts += [
        _history(network, model, inputs, target, window_of(history, shop, session), _ages(history, shop, session))
        for network, history in zip(model.histories.values(), inputs.histories, strict=True)
    ]
    parts.append(_item(model, inputs, target))
    if inputs.queries is not None:
        parts.append(_text(model, inputs.queries, int(inputs.query[row])))
    parts.append(_columns(model, inputs.context, row))
    if model.layout.matched:
        parts += [match(inputs, target, window_of(h, shop, session), _ages(h, shop, session)) for h in inputs.histories]
    parts.append(torch.from_numpy(inputs.log_numbers[row]))
    images = [] if (own := _image(model, inputs, target)) is None else [own]
    if "sim_tier" in model.layout.form:
        images += [tiers(model, inputs, target, window_of(history, shop, session)) for history in inputs.histories]
    if "sim_attention" in model.layout.form:
        images += [
            _similar(network, model, inputs, target, window_of(history, shop, session))
            for network, history in zip(model.histories.values(), inputs.histories, strict=True)
        ]
    x = _with_image(model.first, torch.cat(parts), torch.cat(images) if images else None)
    for layer in model.hidden:
        x = layer.weight @ torch.relu(x) + layer.bias
    return (model.logit.weight @ torch.relu(x) + model.logit.bias)[0]


def _ages(history: History, shop: Shop, session: int) -> list[int]:
    return [int(shop.session_time[session] - history.time[k]) for k in places_of(history, shop, session)]


def match(inputs: Inputs, target: int, items: list[int], ages: list[int]) -> Tensor:
    """How a target agrees with a history: counts, shares and recencies of each column, then distances."""
    values = [list(range(len(inputs.shop.items)))]
    values += [inputs.shop.items[name].to_list() for name in inputs.vocabularies.item.categorical]
    counts, shares, recencies = [], [], []
    for column in values:
        same = [place for place, item in enumerate(items) if column[target] is not None and column[item] == column[target]]
        counts.append(math.log(1 + len(same)))
        shares.append(len(same) / len(items) if items else 0.0)
        recencies.append(max([0.0, *(1 - math.log(1 + ages[place]) / 20 for place in same)]))
    distances, at = [], 0
    for scale in inputs.vocabularies.item.numeric:
        missing = inputs.items.numeric[:, at + 1] if scale.flag else [0] * len(inputs.shop.items)
        known = [float(inputs.items.numeric[item, at]) for item in items if not missing[item]]
        if known and not missing[target]:
            distances.append(math.log(1 + abs(float(inputs.items.numeric[target, at]) - sum(known) / len(known))))
        else:
            distances.append(0.0)
        at += 2 if scale.flag else 1
    return torch.tensor([*counts, *shares, *recencies, *distances])


def _order(network, ages: list[int]) -> Tensor:
    """(L, W) what each item's place adds."""
    if network.history_order == "gap":
        buckets = [min(31, int(math.log2(1 + age) + 1e-4)) for age in ages]
    else:
        places = [len(ages) - 1 - place for place in range(len(ages))]
        buckets = [place if place < 8 else 8 + int(4 * math.log2(place / 8)) for place in places]
    return network.order.weight[buckets]


def _history(network, model: CtrModel, inputs: Inputs, target: int, items: list[int], ages: list[int]) -> Tensor:
    if not items:
        return torch.zeros(network.size)
    cosines = [_score(model, inputs, target, item) for item in items]
    own = [_image(model, inputs, item) for item in items]
    scored = network.image is not None
    x = torch.stack([_with_image(network.project, _item(model, inputs, i), o) for i, o in zip(items, own, strict=True)])
    windows = [x[-size:].mean(0) for size in network.windows]
    kept = _kept(model, inputs, target, items)
    x, cosines, ages = x[kept], [cosines[place] for place in kept], [ages[place] for place in kept]
    if scored and network.score_place == "before":
        x = x + torch.stack(cosines) @ network.image.weight.T
    if network.order is not None:
        x = x + _order(network, ages)
    pool = network.pool
    if hasattr(pool, "qkv"):
        y = x + F.linear(
            _attention(*F.linear(x, pool.qkv.weight, pool.qkv.bias).chunk(3, dim=1), pool.heads), pool.out.weight, pool.out.bias
        )
        if scored and network.score_place == "after":
            y = y + torch.stack(cosines) @ network.image.weight.T
        pooled = F.layer_norm(y, y.shape[1:], pool.norm.weight, pool.norm.bias).mean(0)
    else:
        t = _with_image(network.project, _item(model, inputs, target), _image(model, inputs, target))
        weights = [pool.last(torch.relu(pool.first(torch.cat([h, t, h - t, h * t])))) for h in x]
        pooled = sum(weight * h for weight, h in zip(weights, x, strict=True))
    return torch.cat([network.out.weight @ pooled + network.out.bias, *windows])


def _kept(model: CtrModel, inputs: Inputs, target: int, items: list[int]) -> list[int]:
    """The places of the items that are retrieved for a target."""
    if not model.retrieve:
        return list(range(len(items)))

    def likeness(item: int) -> float:
        if model.layout.group >= 0:
            category = inputs.codes[:, model.layout.group]
            return float(category[item] == category[target] > 0)
        if inputs.unit is None:
            return 0.0
        if not (inputs.present[target] and inputs.present[item]) or (model.cosines.mask_same_item and item == target):
            return -2.0
        return round(float(inputs.unit[target] @ inputs.unit[item]), 5)

    by_likeness = sorted(range(len(items)), key=lambda place: (likeness(items[place]), place))
    return sorted(by_likeness[-model.retrieve :])


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    of_heads = zip(*(part.chunk(heads, dim=1) for part in (q, k, v)), strict=True)
    return torch.cat([torch.softmax(q @ k.T / math.sqrt(q.shape[1]), dim=1) @ v for q, k, v in of_heads], dim=1)


def _score(model: CtrModel, inputs: Inputs, target: int, item: int) -> Tensor:
    if "sim_score" not in model.layout.form or not (inputs.present[target] and inputs.present[item]):
        return torch.zeros(2)
    cosines = model.cosines
    if cosines.mask_same_item and item == target:
        return torch.tensor([0.0, 1.0])
    cosine = float(inputs.unit[target] @ inputs.unit[item])
    return torch.tensor([(cosine - cosines.mean) / cosines.spread, 1.0])


def edges_of(model: CtrModel) -> list[float]:
    """Where tiers begin, the lowest excepted: the cosine of the first step that is in a tier or in one above."""
    count, of_step = model.tiers
    half = len(of_step) // 2
    return [int((of_step < tier).sum() - half) / half for tier in range(1, count)]


def tiers(model: CtrModel, inputs: Inputs, target: int, items: list[int]) -> Tensor:
    """SimTier's counts of one history: log1p of each tier's, the share of items that is in any, log1p of their number."""
    edges = edges_of(model)
    count = [0] * (len(edges) + 1)
    if not items:
        return torch.zeros(len(count) + 2)
    pictured = [item for item in items if inputs.present[item] and inputs.present[target]]
    for item in pictured:
        if not (model.cosines.mask_same_item and item == target):
            count[sum(float(inputs.unit[target] @ inputs.unit[item]) >= edge for edge in edges)] += 1
    return torch.tensor([*(math.log(1 + n) for n in count), sum(count) / len(items), math.log(1 + len(items))])


def _similar(network, model: CtrModel, inputs: Inputs, target: int, items: list[int]) -> Tensor:
    """What the attention that knows cosines gives of one history, head by head and item by item."""
    attention, width = network.image_attention, network.out.out_features
    if not items:
        return torch.zeros(width)

    def read(item: int) -> Tensor:
        return _with_image(network.project, _item(model, inputs, item), _image(model, inputs, item))

    items = [items[place] for place in _kept(model, inputs, target, items)]
    query, size, out = attention.query(read(target)), width // attention.heads, []
    for head in range(attention.heads):
        part, logits, values = slice(head * size, (head + 1) * size), [], []
        for item in items:
            key, value = attention.key(read(item))[part], attention.value(read(item))[part]
            both = inputs.present[target] and inputs.present[item]
            counts = both and not (model.cosines.mask_same_item and item == target)
            cosine = float(inputs.unit[target] @ inputs.unit[item]) if counts else 0.0
            if attention.mix is None:
                edges = edges_of(model)
                tier = sum(cosine >= edge for edge in edges) if both else len(edges) + 1
                key, value = key + attention.of_keys.weight[tier, part], value + attention.of_values.weight[tier, part]
            logit = query[part] @ key / math.sqrt(size)
            if attention.mix is not None:
                g = attention.mix.weight[head]
                logit = g[0] * logit + g[1] * cosine + g[2] * logit * cosine
            logits.append(logit)
            values.append(value)
        shares = torch.softmax(torch.stack(logits), dim=0)
        out.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    return torch.cat(out)


def _image(model: CtrModel, inputs: Inputs, item: int) -> Tensor | None:
    parts, tables, names = [], dict(model.tables.named_tables()), [table.name for table in inputs.items.tables]
    for image in model.layout.images:
        if image.form == "vector":
            vector, adapter = torch.from_numpy(inputs.vectors[item]), model.image_adapter
            if hasattr(adapter, "gate"):
                vector = adapter.value(vector) / (1 + torch.exp(-adapter.gate(vector)))
            elif adapter is not None:
                vector = adapter.outward(F.gelu(adapter.inward(vector)))
            parts += [vector * float(inputs.present[item]), torch.tensor([float(inputs.present[item])])]
        rows = [tables[name][int(inputs.items.rows[names.index(name), item])] for name in image.tables]
        parts += [sum(rows)] if rows else []
    return torch.cat(parts) if parts else None


def _item(model: CtrModel, inputs: Inputs, item: int) -> Tensor:
    columns = _columns(model, inputs.items, item)
    names = [table.name for table in inputs.items.tables]
    if model.image_id is not None and inputs.present[item] and inputs.items.rows[names.index("item"), item] == 0:
        size = model.image_id.out_features
        assert names[0] == "item"
        columns = torch.cat([columns[:size] + model.image_id(torch.from_numpy(inputs.unit[item])), columns[size:]])
    return columns if inputs.titles is None else torch.cat([columns, _text(model, inputs.titles, item)])


def _columns(model: CtrModel, columns: EncodedColumns, at: int) -> Tensor:
    tables = dict(model.tables.named_tables())
    embedded = [tables[t.name][int(columns.rows[k, at])] for k, t in enumerate(columns.tables) if not is_image_table(t.name)]
    return torch.cat([*embedded, torch.from_numpy(columns.numeric[at])])


def _text(model: CtrModel, texts, at: int) -> Tensor:
    words = dict(model.tables.named_tables())["word"]
    rows = texts.rows[texts.start[at] : texts.start[at + 1]]
    return torch.stack([words[int(row)] for row in rows]).mean(0) if len(rows) else torch.zeros(words.shape[1])


def _with_image(layer, x: Tensor, image: Tensor | None) -> Tensor:
    out = layer.base.weight @ x + layer.base.bias
    return out if image is None else out + layer.image.weight @ image
