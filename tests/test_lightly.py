"""Parity with lightly 1.6.0: its losses and ours give the same numbers."""

import numpy as np
import pytest
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss

from pretrain.config import PretrainConfig
from pretrain.methods.simclr import nt_xent
from pretrain.methods.simsiam import SimSiam, negative_cosine


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_nt_xent_equals_lightlys(seed, temperature):
    torch.manual_seed(seed)
    first, second = torch.randn(2, 17, 9, dtype=torch.float64).requires_grad_().unbind()
    ours, theirs = nt_xent(first, second, temperature=temperature), NTXentLoss(temperature=temperature)(first, second)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for own, other in zip(torch.autograd.grad(ours, [first, second]), torch.autograd.grad(theirs, [first, second]), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_negative_cosine_equals_lightlys(seed):
    torch.manual_seed(seed)
    prediction, projection = torch.randn(2, 17, 9, dtype=torch.float64)
    assert negative_cosine(prediction, projection).item() == pytest.approx(NegativeCosineSimilarity()(prediction, projection).item())


@pytest.mark.parametrize("seed", range(3))
def test_simsiams_loss_equals_lightlys_over_both_directions(seed):
    method = SimSiam(np.arange(40), PretrainConfig(dim=8, batch_pictures=16), seed)
    method.heads.double()
    step = method.step(0)
    torch.manual_seed(seed)
    embeddings = torch.randn(32, 8, dtype=torch.float64, requires_grad=True)
    ours = method.loss({"embedding": embeddings}, step)[0]
    z = [method.heads["projector"](view) for view in embeddings.chunk(2)]
    p = [method.heads["predictor"](view) for view in z]
    criterion = NegativeCosineSimilarity()
    theirs = (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach())) / 2
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    own, other = (torch.autograd.grad(total, embeddings)[0] for total in (ours, theirs))
    torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-12)
