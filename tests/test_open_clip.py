"""Our CLIP loss equals open_clip's on the same embeddings."""

import pytest
import torch
import torch.nn.functional as F

from pretrain.methods.clip import clip_loss

loss = pytest.importorskip("open_clip.loss")


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_the_loss_and_its_gradients_equal_open_clips(temperature):
    first = torch.randn(2, 64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image, text = (part.clone().requires_grad_() for part in first)
    theirs_image, theirs_text = (part.clone().requires_grad_() for part in first)
    ours = clip_loss(image, text, temperature=temperature)
    theirs = loss.ClipLoss()(F.normalize(theirs_image, dim=1), F.normalize(theirs_text, dim=1), 1 / temperature)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(image.grad, theirs_image.grad, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(text.grad, theirs_text.grad, atol=1e-6, rtol=1e-6)
