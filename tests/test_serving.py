"""The serving model, exported, is the trained model: parity for every form."""

import torch

from ctr.serving import Question


def question(inputs, batch):
    """A batch of one session as the serving model's question."""
    assert len(batch.histories[0]) == 1
    keys = batch.ids.to_dict()

    def rows(tables):
        return torch.stack([keys[table.name].values() for table in tables], 1)

    layout = inputs.layout
    words, lengths = batch.words.values(), batch.words.lengths()
    items = len(batch.present)
    cut = int(lengths[:items].sum())
    count = len(batch.target)
    return Question(
        user_rows=rows(layout.user)[0],
        user_numeric=batch.user_numeric[0],
        item_rows=rows(layout.item),
        item_numeric=batch.item_numeric,
        title_words=words[:cut],
        title_start=torch.cumsum(lengths[:items], 0).long() - lengths[:items],
        vectors=torch.zeros(items, 0) if batch.vectors is None else batch.vectors,
        present=batch.present,
        clicks=batch.histories[0][0],
        purchases=batch.histories[1][0],
        cart=batch.histories[2][0],
        candidates=batch.target,
        query_words=words[cut:],
        context_rows=rows(layout.context) if layout.context else torch.zeros(count, 0, dtype=torch.int64),
        context_numeric=batch.context_numeric,
    )
