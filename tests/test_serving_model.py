"""The model that is exported gives the trained model's logits, for every form and history; weights of another model are refused."""

import dataclasses

import numpy as np
import pytest
import torch

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.batches import assemble
from ctr.inputs.encode import encode
from ctr.inputs.sampler import split_sessions
from ctr.model.ctr_model import build
from ctr.serving.serving_model import ModelInputs, ServingModel, exported
from run.errors import UserError
from tests.ctr_shop import KINDS, PLACES, ages_of, begun_at_zero, items_of, make_shop, pictures


def history_places(history):
    """The first session's items, oldest first; a single padding item for an empty history."""
    return torch.tensor(items_of(history, 0) or [-1])


def serving_inputs(inputs, batch):
    """A batch of one session as inputs of the serving model."""
    keys = batch.ids.to_dict()
    items = len(batch.present)

    def rows(tables):
        return torch.stack([keys[table.name].values() for table in tables], 1)

    words, lengths = batch.words.values(), batch.words.lengths().long()
    cut = int(lengths[:items].sum())
    return ModelInputs(
        user_rows=rows(inputs.layout.user)[0],
        user_numeric=batch.user_numeric[0],
        item_rows=rows(inputs.layout.item),
        item_numeric=batch.item_numeric,
        title_words=words[:cut],
        title_start=torch.cumsum(lengths[:items], 0) - lengths[:items],
        vectors=torch.zeros(items, 0) if batch.vectors is None else batch.vectors,
        unit=torch.zeros(items, 0) if batch.unit is None else batch.unit,
        present=batch.present,
        codes=batch.codes,
        group=torch.zeros(items, dtype=torch.int32) if batch.group is None else batch.group,
        **{name: ages_of(history, 0) for name, history in zip(("click_ages", "purchase_ages", "cart_ages"), batch.histories, strict=True)},
        clicks=history_places(batch.histories[0]),
        purchases=history_places(batch.histories[1]),
        cart=history_places(batch.histories[2]),
        candidates=batch.target,
        query_words=words[cut:],
        context_rows=rows(inputs.layout.context),
        context_numeric=batch.context_numeric,
        log_numbers=batch.log_numbers,
        own_logit=torch.zeros(len(batch.target)),
    )


@pytest.mark.parametrize(("form", "pooling", "place"), KINDS)
def test_the_exported_program_gives_the_trained_models_logits(form, pooling, place):
    shop, style = make_shop()
    config = CtrConfig(**PRESETS["tiny"], pooling=pooling, **PLACES[place])
    inputs = encode(shop, pictures(style, form), config)
    model = build(inputs.layout, config, seed=3).eval()
    with torch.no_grad():
        for _, table in model.tables.named_tables():
            table.mul_(10)
        begun_at_zero(model)
    serving = ServingModel(inputs.layout, config, model.state_dict())
    sizes = {name: 0 if array is None else array.shape[1] for name, array in (("vectors", inputs.vectors), ("unit", inputs.unit))}
    program = serving if pooling == "target" and form != "sim_score" else exported(serving, **sizes).module()  # exporting takes a second
    part, lengths = split_sessions(shop, "test"), set()
    with torch.no_grad():
        for session in range(25):
            batch = assemble(inputs, part, np.array([session]))
            asked = serving_inputs(inputs, batch)
            lengths.add(tuple(len(part) for part in (asked.clicks, asked.purchases, asked.cart)))
            logits = model(batch)
            torch.testing.assert_close(serving(*asked), logits, atol=1e-5, rtol=0)
            torch.testing.assert_close(program(*asked), logits, atol=1e-5, rtol=0)
    assert len(lengths) > 5
    assert (part.count[:25] == 1).any()


def test_weights_of_another_model_are_refused_by_name():
    shop, style = make_shop()
    config = CtrConfig(**PRESETS["tiny"])
    inputs = encode(shop, pictures(style, "none"), config)
    weights = build(inputs.layout, config, seed=3).state_dict()
    with pytest.raises(UserError, match=r"weights of another model: 'hidden\.2\.bias'"):
        ServingModel(inputs.layout, dataclasses.replace(config, hidden=config.hidden[:-1]), weights)
