"""Log-probabilities: both layouts against one plain forward per sequence, on every kind of model and wrapping."""

import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import linear

from bdpo.errors import BdpoError
from bdpo.forward import attention, head, logprobs
from bdpo.forward import layout as layouts
from bdpo.forward.layout import Tree, lay_out
from bdpo.forward.logprobs import branch_logps, choose_layout, window_of
from bdpo.forward.lora import fuse_lora
from tiny import tiny_model

KNOWN = ("llama", "qwen2", "mistral", "gemma", "gpt2")
WRAPPINGS = ("plain", "lora", "checkpointed", "fused lora", "fused lora+checkpointed")


def _trees(shapes, seed=0, system=0):
    """Random trees that begin alike with `system` tokens: (further tokens of the prefix, tokens of each branch)."""
    generator = torch.Generator().manual_seed(seed)

    def ids(n):
        return torch.randint(1, 320, (n,), generator=generator).tolist()

    alike = ids(system)
    return [Tree(alike + ids(prefix), [ids(branch) for branch in branches]) for prefix, branches in shapes]


TREES = _trees([(5, (3, 7)), (9, (12, 4)), (3, (2, 2)), (1, (1, 6, 3))])
LONGEST = 21  # tokens of the longest prefix + branch in TREES


def slow_logps(model, trees):
    """Reference: each branch on its own, causal model on unpadded ids; (sums of log-probabilities, of entropies)."""
    logps, entropies = [], []
    for tree in trees:
        for branch in tree.branches:
            logits = model(input_ids=torch.tensor([[*tree.prefix, *branch]])).logits[0, len(tree.prefix) - 1 : -1]
            every = torch.log_softmax(logits.float(), -1)
            logps.append(every.gather(1, torch.tensor(branch)[:, None]).sum())
            entropies.append(-(every.exp() * every).sum())
    return torch.stack(logps), torch.stack(entropies)


def _wrapped(model, wrapping):
    if "lora" in wrapping:  # B random, not zero: the adapter changes the numbers
        transposed = model.config.model_type == "gpt2"
        torch.manual_seed(0)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, fan_in_fan_out=transposed)
        model = get_peft_model(model, config)
    if "fused" in wrapping:
        fuse_lora(model)
    if "checkpointed" in wrapping:
        if "lora" in wrapping:
            model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
        assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        model.train()  # checkpointing is off in eval mode; the tiny models have no dropout
    return model


def _gradients(model, logps):
    """Gradients of a weighted sum of branches, so that mixed-up branches show."""
    model.zero_grad()
    (logps * torch.linspace(-1, 2, len(logps))).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", KNOWN)
def test_every_layout_equals_one_plain_forward_per_sequence(architecture, attention, wrapping):
    model = _wrapped(tiny_model(architecture, attn_implementation=attention), wrapping)
    chosen = {"sdpa": "packed", "eager": "shared"}[attention]
    assert choose_layout(model, LONGEST) == (chosen, f"{architecture} under {attention}")
    expected, expected_entropies = slow_logps(model, TREES)
    expected_gradients = _gradients(model, expected)
    assert expected_gradients.abs().max() > 1
    for layout in (chosen, "shared", "padded"):
        batch = lay_out(TREES, layout=layout)
        assert batch.layout == layout and batch.input_ids.shape == ((9, 21) if layout == "padded" else (1, 58))
        found = branch_logps(model, batch, entropy=True)
        torch.testing.assert_close(found.logps, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.entropies, expected_entropies, atol=1e-4, rtol=0)
        torch.testing.assert_close(_gradients(model, found.logps), expected_gradients, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("layout", ["packed", "shared"])
def test_a_system_prompt_laid_out_once_changes_nothing(layout, wrapping):
    model = _wrapped(tiny_model(), wrapping)
    trees = _trees([(5, (3, 7)), (0, (12, 4)), (3, (2, 2))], system=20)  # the second prompt has nothing else
    expected, expected_entropies = slow_logps(model, trees)
    expected_gradients = _gradients(model, expected)
    batch = lay_out(trees, layout=layout)
    assert batch.input_ids.shape == (1, 58)  # not 98
    found = branch_logps(model, batch, entropy=True)
    torch.testing.assert_close(found.logps, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.entropies, expected_entropies, atol=1e-4, rtol=0)
    torch.testing.assert_close(_gradients(model, found.logps), expected_gradients, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", KNOWN)
@torch.no_grad()
def test_without_the_mask_the_numbers_would_be_off_by_far_more(architecture, attention, monkeypatch):
    model = tiny_model(architecture, attn_implementation=attention)
    expected, _ = slow_logps(model, TREES)
    monkeypatch.setattr(logprobs, "attention_mask", lambda batch: torch.ones(1, 1, 58, 58, dtype=torch.bool).tril())
    gap = (branch_logps(model, lay_out(TREES)).logps - expected).abs()
    assert gap.max() > 2 and gap[2] < 1e-4  # of all branches only the first of the row sees what it should


@torch.no_grad()
def test_an_adapter_with_weights_changes_the_numbers():
    plain = slow_logps(tiny_model(), TREES)[0]
    adapted = slow_logps(_wrapped(tiny_model(), "lora"), TREES)[0]
    assert (plain - adapted).abs().min() > 0.01


@pytest.mark.parametrize(
    ("layout", "dear_tokens", "shape"),
    [("shared", 1, (2, 40)), ("shared", 10**9, (1, 72)), ("packed", 1, (1, 72)), ("packed", 10**9, (1, 72))],
)
@torch.no_grad()
def test_packing_several_trees_in_a_row_changes_nothing(layout, dear_tokens, shape, monkeypatch):
    monkeypatch.setattr(layouts, "_ATTENTION_TOKENS", dear_tokens)
    model = tiny_model()
    trees = _trees([(20, (10, 10)), (3, (4, 5)), (2, (2, 3)), (6, (3, 4))], seed=1)  # 40, 12, 7, 13 tokens
    together = lay_out(trees, layout=layout)
    assert together.input_ids.shape == shape
    alone = torch.cat([branch_logps(model, lay_out([tree])).logps for tree in trees])
    torch.testing.assert_close(branch_logps(model, together).logps, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", ["packed", "shared", "padded"])
@torch.no_grad()
def test_logits_are_made_at_the_predicting_positions_only(layout, monkeypatch):
    model = tiny_model()
    batch = lay_out(TREES, layout=layout)
    shapes = []
    monkeypatch.setattr(head, "CPU_CHUNK", 320 * 16)
    monkeypatch.setattr(head, "NARROWEST", 1)
    monkeypatch.setattr(head, "linear", lambda *args: shapes.append(linear(*args).shape) or linear(*args))
    branch_logps(model, batch)
    tokens = sum(len(branch) for tree in TREES for branch in tree.branches)  # 40
    predicting = tokens if layout == "padded" else tokens - 5  # a prefix's last token serves all of its branches
    widths = (128, 128, 64) if layout == "padded" else (146, 146, 28)  # 5,120 logits at a time, of a vocabulary of 320
    assert shapes == [(predicting, width) for width in widths]
    assert "forward" not in vars(model.lm_head)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@torch.no_grad()
def test_a_head_with_an_adapter_gives_whole_logits_at_the_predicting_positions(layout):
    model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    shapes = []
    model.lm_head.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    found = branch_logps(model, lay_out(TREES, layout=layout), entropy=True)
    assert shapes == [(1, {"packed": 35, "padded": 40}[layout], 320)]
    assert not model.lm_head._forward_pre_hooks
    expected, entropies = slow_logps(model, TREES)
    torch.testing.assert_close(found.logps, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.entropies, entropies, atol=1e-4, rtol=0)


@pytest.mark.parametrize("trained", ["all", "head alone", "all but the head"])
@pytest.mark.parametrize("chunk", [320 * 7, 2**24])
def test_the_gradients_of_a_sliced_head(chunk, trained, monkeypatch):
    monkeypatch.setattr(head, "CPU_CHUNK", chunk)
    monkeypatch.setattr(head, "NARROWEST", 1)
    model = tiny_model(tie_word_embeddings=False)
    model.lm_head.bias = nn.Parameter(torch.linspace(-1, 1, 320))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained == "all" or ("lm_head" in name) == (trained == "head alone"))
    expected = _gradients(model, slow_logps(model, TREES)[0])
    found = _gradients(model, branch_logps(model, lay_out(TREES, layout="packed")).logps)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-4)


@torch.no_grad()
def test_scoring_spends_nothing_on_gradients(monkeypatch):
    model = tiny_model()
    assert model.lm_head.weight.requires_grad
    kept = []
    monkeypatch.setattr(
        head._SlicedHead, "apply", lambda *args: kept.append(args[-1]) or (torch.zeros(40), torch.zeros(35))
    )
    branch_logps(model, lay_out(TREES))
    assert kept == [False]


@torch.no_grad()
def test_the_hook_goes_when_the_forward_fails():
    model = tiny_model()
    with pytest.raises(IndexError):
        branch_logps(model, lay_out([Tree([9999], [[1]])]))
    assert not model.lm_head._forward_pre_hooks


@torch.no_grad()
def test_a_bfloat16_model_gets_its_softmax_in_float32(monkeypatch):
    model = tiny_model(dtype=torch.bfloat16)
    batch = lay_out(TREES)
    logits = []
    monkeypatch.setattr(head, "linear", lambda *args: logits.append(linear(*args)) or logits[0])
    found = branch_logps(model, batch).logps
    assert found.dtype == torch.float32 and logits[0].dtype == torch.bfloat16

    def sums(dtype):
        token_logps = torch.log_softmax(logits[0].to(dtype), -1)[batch.predictor_of, batch.targets].double()
        return torch.stack([token_logps[batch.branch_of == k].sum() for k in range(len(batch.lengths))])

    torch.testing.assert_close(found.double(), sums(torch.float64), atol=1e-4, rtol=0)
    assert (sums(torch.bfloat16) - sums(torch.float64)).abs().max() > 0.01  # what a bfloat16 softmax would cost


@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16 weights", "autocast"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_bfloat16_the_mask_still_hides_the_branches(attention, autocast):
    expected = slow_logps(tiny_model(), TREES)[0].detach()
    dtype = torch.float32 if autocast else torch.bfloat16
    model = tiny_model(attn_implementation=attention, dtype=dtype)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))  # B is zero; the adapter is float32
    for layout in ("shared", "padded"):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = branch_logps(model, lay_out(TREES, layout=layout)).logps
        found.sum().backward()
        assert found.dtype == torch.float32 and (found - expected).abs().max() < 0.1  # unmasked they are off by 3
    assert all(p.grad.isfinite().all() for name, p in model.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_a_window_shorter_than_the_branch_gives_padded(attention):
    model = tiny_model("mistral-windowed", attn_implementation=attention)  # 8 tokens
    layout, why = choose_layout(model, LONGEST)
    assert layout == "padded" and "sliding window of 8" in why and "21" in why
    expected, _ = slow_logps(model, TREES)
    torch.testing.assert_close(branch_logps(model, lay_out(TREES, layout=layout)).logps, expected, atol=1e-4, rtol=0)
    shared = branch_logps(model, lay_out(TREES)).logps
    assert (shared - expected).abs().max() > 0.05  # the choice matters


@torch.no_grad()
def test_a_window_as_long_as_the_branch_gives_shared():
    model = tiny_model("mistral", sliding_window=LONGEST)
    assert choose_layout(model, LONGEST)[0] == "packed"
    assert choose_layout(model, LONGEST + 1)[0] == "padded"
    assert lay_out(TREES).input_ids.shape[1] > LONGEST  # the row is longer than the window, the branches are not
    found = branch_logps(model, lay_out(TREES)).logps
    torch.testing.assert_close(found, slow_logps(model, TREES)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "config", "window"),
    [
        ("llama", {}, None),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 16}, None),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, 16),
        ("gemma2", {"sliding_window": 512}, 512),
        ("mistral-windowed", {}, 8),
    ],
)
def test_the_window_of_a_config(architecture, config, window):
    assert window_of(tiny_model(architecture, **config).config) == window


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_state_space_model_gives_padded():
    model = tiny_model("mamba")
    layout, why = choose_layout(model, LONGEST)
    assert layout == "padded" and "mamba" in why
    found = branch_logps(model, lay_out(TREES, layout=layout)).logps
    torch.testing.assert_close(found, slow_logps(model, TREES)[0], atol=1e-4, rtol=0)


def test_attention_that_takes_no_mask_gives_padded_without_its_kernel():
    model = tiny_model()
    model.forward = None  # a probe would fail
    for name in ("flash_attention_2", "kernels-community/flash-attn3"):
        model.config._attn_implementation_internal = name
        assert choose_layout(model, LONGEST) == ("padded", f"{name} attention takes no custom mask")


@pytest.mark.skipif(shutil.which("g++") is None, reason="FlexAttention compiles its kernel")
@torch.no_grad()
def test_flex_attention_gives_the_same_forward_pass_on_packed_rows():
    """Forward alone: on a CPU FlexAttention has no backward pass (torch 2.13)."""
    model = tiny_model(attn_implementation="flex_attention")
    trees = _trees([(140, (70, 80)), (30, (120, 20, 9))], seed=2, system=10)  # several tiles, some of them empty
    assert choose_layout(model, 230) == ("packed", "llama under flex_attention")
    found = branch_logps(model, lay_out(trees, layout="packed")).logps
    torch.testing.assert_close(found, slow_logps(tiny_model(), trees)[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_an_unknown_architecture_is_probed():
    model = tiny_model("qwen3").train()
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    assert choose_layout(model, LONGEST) == ("packed", "a probe of qwen3 agreed")
    handle.remove()
    assert rows == [(1, LONGEST + 4), (2, LONGEST)]  # prompt of 17, two replies of 4
    assert model.training  # as it was
    found = branch_logps(model, lay_out(TREES)).logps
    torch.testing.assert_close(found, slow_logps(model, TREES)[0], atol=1e-4, rtol=0)


def test_a_probe_that_differs_gives_padded(monkeypatch):
    model = tiny_model("qwen3", attn_implementation="eager")
    monkeypatch.setattr(
        logprobs,
        "attention_mask",
        lambda batch: (
            torch.ones(1, 1, batch.input_ids.shape[1], batch.input_ids.shape[1], dtype=torch.bool).tril()
            if batch.layout == "shared"
            else torch.ones_like(batch.input_ids)
        ),
    )
    layout, why = choose_layout(model, LONGEST)
    assert layout == "padded" and "differed by" in why


def test_the_probe_finds_a_window_that_the_config_does_not_name(monkeypatch):
    model = tiny_model("mistral-windowed")
    monkeypatch.setattr(logprobs, "_SHARED_KNOWN", set())
    monkeypatch.setattr(logprobs, "window_of", lambda config: None)
    assert choose_layout(model, 8)[0] == "packed"
    assert choose_layout(model, 12)[0] == "padded"


def test_where_blocks_do_not_pass_a_dense_mask_is_probed(monkeypatch):
    model = tiny_model("qwen3")
    monkeypatch.setattr(attention, "_UNKNOWN_HERE", ("sliding_window",))
    model.config.sliding_window = 512  # qwen3 hands it to its attention
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 512
    assert choose_layout(model, LONGEST) == ("shared", "a probe of qwen3 agreed")


@torch.no_grad()
def test_gemma2_with_soft_capping_runs_eager_and_shared():
    model = tiny_model("gemma2", attn_logit_softcapping=0.5, final_logit_softcapping=3.0)
    assert model.config._attn_implementation == "eager"  # transformers: sdpa does not support soft-capping
    assert choose_layout(model, LONGEST) == ("shared", "a probe of gemma2 agreed")
    expected, _ = slow_logps(model, TREES)
    for layout in ("shared", "padded"):
        found = branch_logps(model, lay_out(TREES, layout=layout)).logps
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    uncapped = tiny_model("gemma2", attn_logit_softcapping=None, final_logit_softcapping=3.0)
    assert (slow_logps(uncapped, TREES)[0] - expected).abs().max() > 1e-3  # the cap is felt
    assert choose_layout(model, 513) == (
        "padded",
        "the sliding window of 512 tokens is shorter than the longest branch, 513",
    )


def test_models_without_a_usable_head_are_refused():
    class Headless(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny_model()
            self.config = self.inner.config

        def get_output_embeddings(self):
            return self.head if hasattr(self, "head") else None

        def forward(self, **inputs):
            return self.inner(**inputs)

    model = Headless()
    with pytest.raises(BdpoError, match="Headless has no LM head"):
        branch_logps(model, lay_out(TREES))
    model.head = nn.Linear(2, 2)  # never called: logits would be those of all positions
    with pytest.raises(BdpoError, match="does not send its hidden states through its LM head"):
        branch_logps(model, lay_out(TREES))


def test_the_adapter_that_is_off_is_not_felt():
    model = _wrapped(tiny_model(), "lora")
    plain, _ = slow_logps(tiny_model(), TREES)
    with torch.no_grad(), model.disable_adapter():
        off = branch_logps(model, lay_out(TREES)).logps
    torch.testing.assert_close(off, plain.detach(), atol=1e-4, rtol=0)
