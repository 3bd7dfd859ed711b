"""The fused LoRA layer against PEFT's own, by finite differences, and where it leaves the work to PEFT."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from bdpo.forward.lora import FusedLinear, _FrozenWithLora, fuse_lora


class Layer(nn.Module):
    """One linear layer to put an adapter on."""

    def __init__(self, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.proj = nn.Linear(6, 5, bias=bias)

    def forward(self, x):
        return self.proj(x)


def _pair(bias=True, **config):
    """(PEFT's model, the same fused), with an adapter whose B is not zero."""
    config = {"r": 3, "lora_alpha": 12, "target_modules": ["proj"], "init_lora_weights": False, **config}
    peft_model = get_peft_model(Layer(bias), LoraConfig(**config))
    fused = copy.deepcopy(peft_model)
    fuse_lora(fused)
    assert type(fused.base_model.model.proj) is FusedLinear
    return peft_model, fused


def _gradients(model, x):
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.pow(2).sum().backward()
    return [y, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_numbers_and_gradients_of_peft(bias, shape):
    peft_model, fused = _pair(bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found, expected = _gradients(fused, x), _gradients(peft_model, x)
    assert len(found) == 4  # output, input, A, B
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, atol=1e-5, rtol=1e-5)


def test_a_layer_by_hand():
    w, a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0]])
    x = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    y = _FrozenWithLora.apply(x, w, torch.tensor([10.0]), a, b, 0.5)
    assert y.tolist() == [[17.0], [16.0]]  # 10 + 3 + 0.5 * 2 * 4, 10 + 4 + 0.5 * 2 * 2


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    x, a, b = (torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in ((2, 4, 6), (3, 6), (5, 3)))
    w, bias = torch.randn(5, 6, dtype=torch.double), torch.randn(5, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x, a, b: _FrozenWithLora.apply(x, w, bias, a, b, 0.7), (x, a, b))


def _disabled(model):
    model.disable_adapter_layers()


def _second_adapter(model):
    model.add_adapter("second", LoraConfig(r=2, target_modules=["proj"], init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])


def _hooked(model):
    model.base_model.model.proj.base_layer.register_forward_hook(lambda module, args, output: output * 2)


def _trained_base(model):
    model.base_model.model.proj.base_layer.weight.requires_grad_()


def _wider_adapter(model):
    model.base_model.model.proj.lora_A.double()
    model.base_model.model.proj.lora_B.double()


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ({}, _disabled),
        ({}, lambda model: model.merge_adapter()),
        ({}, _second_adapter),
        ({}, _hooked),
        ({}, _trained_base),
        ({"use_dora": True}, lambda model: None),
        ({"lora_bias": True}, lambda model: None),
        ({}, _wider_adapter),
    ],
    ids=["off", "merged", "two adapters", "hook", "trained base", "DoRA", "bias of the adapter", "mixed dtypes"],
)
def test_what_is_more_than_one_plain_adapter_is_left_to_peft(config, change, monkeypatch):
    peft_model, fused = _pair(**config)
    for model in (peft_model, fused):
        torch.manual_seed(2)
        change(model)
    monkeypatch.setattr(_FrozenWithLora, "apply", None)
    x = torch.ones(2, 6)
    torch.testing.assert_close(fused(x), peft_model(x), atol=0, rtol=0)


def test_dropout_is_peft_while_training_and_fused_after(monkeypatch):
    peft_model, fused = _pair(lora_dropout=0.5)
    x = torch.ones(2, 6)
    outputs = []
    for model in (peft_model, fused):
        torch.manual_seed(3)
        outputs.append(model.train()(x))
    torch.testing.assert_close(*outputs, atol=0, rtol=0)
    monkeypatch.setattr(_FrozenWithLora, "apply", lambda *args: "fused")
    assert fused.eval()(x) == "fused"


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
def test_under_autocast_all_is_computed_in_its_dtype_and_gradients_are_the_adapters(base, monkeypatch):
    peft_model, fused = _pair()
    for model in (peft_model, fused):  # an adapter stays float32
        model.base_model.model.proj.base_layer.to(base)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    calls, apply = [], _FrozenWithLora.apply
    monkeypatch.setattr(_FrozenWithLora, "apply", lambda *args: calls.append(args[0].dtype) or apply(*args))
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = _gradients(fused, x), _gradients(peft_model, x)
    assert calls == [torch.bfloat16]
    exact = _gradients(copy.deepcopy(peft_model).float(), x)
    for f, e, true in zip(found, expected, exact, strict=True):
        assert f.dtype == e.dtype
        scale = float(true.detach().abs().max())
        assert (f - true).abs().max() < 0.03 * scale and (e - true).abs().max() < 0.03 * scale


def test_an_input_without_gradient_and_out_of_order_in_memory():
    peft_model, fused = _pair()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).T
    gradients = []
    for model in (peft_model, fused):
        model(x).pow(2).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_fused_model_merges_and_saves_as_peft_does(tmp_path):
    peft_model, fused = _pair()
    for name, model in (("peft", peft_model), ("fused", fused)):
        model.save_pretrained(tmp_path / name)
    assert (tmp_path / "peft/adapter_model.safetensors").read_bytes() == (
        tmp_path / "fused/adapter_model.safetensors"
    ).read_bytes()
    x = torch.ones(2, 6)
    torch.testing.assert_close(fused.merge_and_unload()(x), peft_model(x), atol=1e-5, rtol=0)
