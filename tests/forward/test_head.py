"""The LM head in slices of the vocabulary, against whole logits in float64 and float32."""

import pytest
import torch

from bdpo.forward import head


@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16 weights", "autocast"])
def test_a_sliced_head_in_bfloat16_is_near_the_float32_one(autocast, monkeypatch):
    monkeypatch.setattr(head, "CPU_CHUNK", 1)
    monkeypatch.setattr(head, "NARROWEST", 50)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(6, 16, generator=generator), torch.randn(320, 16, generator=generator)
    rows, targets = torch.tensor([0, 1, 1, 4, 5]), torch.tensor([3, 319, 50, 49, 100])
    dtype = torch.float32 if autocast else torch.bfloat16
    found, expected = [], []
    for gradients, width, on in ((found, dtype, autocast), (expected, torch.float32, False)):
        h, w = (tensor.bfloat16().to(width).requires_grad_() for tensor in (hidden, weight))
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            logps = head.token_statistics(h, w, None, rows, targets)[:, 0]
        (logps * torch.tensor([1.0, -2.0, 3.0, 0.5, 1.0])).sum().backward()
        assert h.grad.dtype == w.grad.dtype == width
        gradients += [logps.detach(), h.grad.float(), w.grad.float()]
    for ours, exact in zip(found, expected, strict=True):
        assert (ours - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("narrowest", [1, 100, 320])
@torch.no_grad()
def test_logits_far_apart_overflow_in_no_slice(narrowest, monkeypatch):
    monkeypatch.setattr(head, "CPU_CHUNK", 1)
    monkeypatch.setattr(head, "NARROWEST", narrowest)
    weight = torch.linspace(-300, 300, 320)[torch.randperm(320, generator=torch.Generator().manual_seed(0))][:, None]
    hidden, rows, targets = (
        torch.tensor([[1.0], [-1.0], [0.01]]),
        torch.tensor([0, 1, 2, 2]),
        torch.tensor([5, 7, 0, 319]),
    )
    every = (hidden.double() @ weight.double().T).log_softmax(-1)
    found = head.token_statistics(hidden, weight, None, rows, targets, entropy=True)
    torch.testing.assert_close(found[:, 0].double(), every[rows, targets], atol=1e-4, rtol=1e-6)
    torch.testing.assert_close(found[:, 1].double(), -(every.exp() * every).sum(-1)[rows], atol=1e-4, rtol=0)
