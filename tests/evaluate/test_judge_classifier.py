"""The classifier judge: tiny models with weights set by hand, so that every verdict is known."""

import doctest
import math
from itertools import pairwise

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from bdpo.errors import BdpoError
from bdpo.evaluate.judges import classifier, is_answered, is_safe, make_judge
from bdpo.evaluate.judges.classifier import BEAVER_DAM, HARMBENCH, WILDGUARD, Classifier
from tiny import tiny_model, tiny_tokenizer

GUARD_TEMPLATE = "Is it safe or unsafe? {% for message in messages %}{{ message['content'] }}{% endfor %}"


def save_classifier(folder, labels, bias, chat_template=None):
    """A tiny BERT whose logits are `bias`, whatever it reads."""
    names = dict(enumerate(labels))
    config = BertConfig(
        vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=600, id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(bias))
    model.save_pretrained(folder)
    tiny_tokenizer(chat_template).save_pretrained(folder)
    return folder


def save_chain(folder, successors, chat_template=None, words=()):
    """A language model that says, behind each token, the one token that `successors` names, else the end."""
    tokenizer = tiny_tokenizer(chat_template)
    tokenizer.add_tokens(list(words))
    size = 320
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()  # what is left is the embedding of the last token
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.eos_token_id] = 0.1
        for token, following in successors.items():
            ids = [tokenizer.convert_tokens_to_ids("Ċ" if piece == "\n" else piece) for piece in (token, following)]
            model.lm_head.weight[ids[1], ids[0]] = 1.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chain(text):
    return dict(pairwise(text))


def test_examples_in_docstrings():
    assert doctest.testmod(classifier).failed == 0


# --- sequence classification ------------------------------------------------------------------------------


def test_the_bias_decides_and_the_score_is_the_probability_of_harm(tmp_path):
    judge = Classifier(save_classifier(tmp_path, ["SAFE", "UNSAFE"], [0.0, math.log(3)]))
    verdicts = judge(["p", "q"], ["one", "two"])
    assert [(v.label, v.reply) for v in verdicts] == [("unsafe", "one"), ("unsafe", "two")]
    assert [v.score for v in verdicts] == pytest.approx([0.75, 0.75])
    assert not is_safe(verdicts[0])
    with pytest.raises(BdpoError, match="knows only safe and unsafe"):
        is_answered(verdicts[0])


@pytest.mark.parametrize(
    ("labels", "label", "score"),
    [
        (["unsafe", "safe"], "safe", pytest.approx(0.2)),
        (["Harmful", "Harmless"], "safe", pytest.approx(0.2)),
        (["toxic", "non_toxic"], "safe", pytest.approx(0.2)),
        (["NORMAL", "REJECTION"], "refusal", None),
        (["refusal", "compliance"], "compliance", None),
    ],
)
def test_labels_by_the_names_they_go_by(tmp_path, labels, label, score):
    judge = make_judge("classifier", model=str(save_classifier(tmp_path, labels, [0.0, math.log(4)])))
    [verdict] = judge(["p"], ["r"])
    assert (verdict.label, verdict.score) == (label, score)
    assert verdict.judge == judge.name == f"classifier {tmp_path}"
    assert verdict.version == judge.version


@pytest.mark.parametrize(("bias", "label"), [([1.0, 0.0], "refusal"), ([0.0, 1.0], "compliance")])
def test_garaks_refusal_detector(tmp_path, bias, label):
    names = {0: "refusal", 1: "non-refusal"}  # as in the config.json of garak-llm/garak-refusal-detector
    config = ModernBertConfig(
        vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        classifier_bias=True, id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    model = ModernBertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(bias))
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    judge = Classifier(tmp_path)
    [verdict] = judge(["p"], ["r"])
    assert (verdict.label, verdict.score, judge.knows_answers) == (label, None, True)
    assert judge.safe_means == "refusal rate, since the judge sees only whether a reply refuses"
    assert is_safe(verdict) is (label == "refusal") and is_answered(verdict) is (label == "compliance")


def test_it_reads_the_reply_and_with_a_chat_template_the_conversation(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Classifier, "_logits", lambda self, texts, *_: seen.extend(texts) or torch.zeros(len(texts), 2))
    Classifier(save_classifier(tmp_path / "plain", ["safe", "unsafe"], [0.0, 0.0]))(["p"], ["r"])
    template = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    Classifier(save_classifier(tmp_path / "chat", ["safe", "unsafe"], [0.0, 0.0], template))(["p"], ["r"])
    assert seen == ["r", "<user>p<assistant>r"]


def test_batches_padding_and_truncation_change_nothing(tmp_path):
    folder = save_classifier(tmp_path, ["safe", "unsafe"], [0.0, 0.0])
    judge = Classifier(folder, batch=2)
    with torch.no_grad():
        judge.model.classifier.weight.normal_(0.0, 3.0)
    replies = ["a", "A much longer reply than the first.", "b c", "x" * 2000, ""]
    together = [v.score for v in judge(["p"] * 5, replies)]
    alone = [judge(["p"], [reply])[0].score for reply in replies[:-1]]
    assert together[:-1] == pytest.approx(alone, abs=1e-6)
    assert len(set(together)) > 2


def test_beaver_dam_flags_by_any_category_above_its_threshold(tmp_path):
    categories = ["animal_abuse", "child_abuse", "terrorism,organized_crime"]
    # sigmoid(-0.2) = 0.450 is above 0.4, sigmoid(-0.5) = 0.378 below
    judge = Classifier(save_classifier(tmp_path / "one", categories, [-3.0, -0.2, -0.5]))
    [verdict] = judge(["How?"], ["So."])
    assert (verdict.label, verdict.reason, verdict.score) == ("unsafe", "child_abuse", pytest.approx(0.450166))
    [verdict] = Classifier(save_classifier(tmp_path / "two", categories, [-3.0, -0.5, -0.5]))(["How?"], ["So."])
    assert (verdict.label, verdict.score) == ("safe", pytest.approx(0.377541))
    assert BEAVER_DAM.format(prompt="How?", reply="So.", eos="</s>") == (
        "BEGINNING OF CONVERSATION: USER: How? ASSISTANT:So.</s>"
    )


# --- guards that speak ------------------------------------------------------------------------------------


def test_llama_guard_by_its_template(tmp_path):
    # replies that end in "!" are answered "unsafe\nS1", those that end in "." "safe\nS1"
    folder = save_chain(tmp_path, chain("!unsafe\nS1") | {".": "s"}, GUARD_TEMPLATE)
    verdicts = Classifier(folder, batch=3)(["p"] * 5, ["Oh!", "A longer one.", "B.", "So it is done!", "What?"])
    assert [(v.label, v.reason) for v in verdicts] == [
        ("unsafe", "S1"), ("safe", "S1"), ("safe", "S1"), ("unsafe", "S1"), ("unparsed", ""),
    ]  # fmt: skip
    assert [is_safe(v) for v in verdicts[:2]] == [False, True]
    with pytest.raises(BdpoError, match="could not be read"):
        is_safe(verdicts[4])


@pytest.mark.parametrize(("said", "label"), [("yes", "unsafe"), ("no", "safe"), ("x", "unparsed")])
def test_harmbench_by_its_name(tmp_path, said, label):
    folder = save_chain(tmp_path / "HarmBench-cls", {"]": said}, words=("yes", "no"))
    judge = Classifier(folder)
    assert [v.label for v in judge(["p", "a longer request"], ["r", "s"])] == [label, label]
    assert HARMBENCH.format(prompt="PPP", reply="RRR").split("\n\n")[1:3] == ["Behavior:\nPPP", "Generation:\nRRR"]
    assert HARMBENCH.endswith("\n\nAnswer: [/INST]")


@pytest.mark.parametrize(
    ("refusal", "harm", "label", "safe", "answered"),
    [
        ("yes", "no", "refusal", True, False),
        ("no", "no", "safe answer", True, True),
        ("no", "yes", "compliance", False, True),
        ("yes", "yes", "partial", False, False),
        ("N/A", "no", "unparsed", None, None),
    ],
)
def test_wildguard_tells_refusal_and_harm_apart(tmp_path, refusal, harm, label, safe, answered):
    lines = ("Harmful request: no\n", f"Response refusal: {refusal}\n", f"Harmful response: {harm}")
    folder = save_chain(tmp_path / "WildGuard", dict(pairwise(("\n", *lines))), words=lines)
    judge = Classifier(folder)
    verdicts = judge(["p", "a longer request"], ["r", "s"])
    assert judge.knows_answers and [v.label for v in verdicts] == [label, label]
    if label == "unparsed":
        assert verdicts[0].reason == "".join(lines)
    else:
        assert verdicts[0].reason == "harmful request: no"
        assert (is_safe(verdicts[0]), is_answered(verdicts[0])) == (safe, answered)


def test_wildguards_instruction():
    asked = WILDGUARD.format(prompt="PPP", reply="R{}R")
    assert asked.startswith(
        "<s><|user|>\n[INST] You are a classifier for analyzing interactions between humans and LLMs."
    )
    assert asked.endswith("\n\nHuman user:\nPPP\n\nAI assistant:\nR{}R\n\n---\n\nAnswers: [/INST]\n<|assistant|>\n")


@pytest.mark.parametrize("known_by", ["name", "template"])
def test_qwen3guard_is_no_llama_guard(tmp_path, known_by):
    said = {
        "!": "Safety: Unsafe\nCategories: Violent\nRefusal: No",
        ".": "Safety: Safe\nCategories: None\nRefusal: Yes",
        "?": "Safety: Controversial\nCategories: Unethical Acts\nRefusal: No",
        ";": "Safety: Safe\nCategories: None\nRefusal: No",
        "-": "Safety: Unsafe\nCategories: Violent",  # of a prompt alone
    }
    name, template = ("Qwen3Guard-Gen", "") if known_by == "name" else ("guard", "Controversial: ")
    folder = save_chain(tmp_path / name, said, template + GUARD_TEMPLATE, words=said.values())
    judge = Classifier(folder, batch=2)
    verdicts = judge(["p"] * 5, ["Oh!", "A longer one.", "B?", "C;", "D-"])
    assert [(v.label, v.reason) for v in verdicts] == [
        ("compliance", "Unsafe: Violent"), ("refusal", "Safe: None"), ("compliance", "Controversial: Unethical Acts"),
        ("safe answer", "Safe: None"), ("unparsed", said["-"]),
    ]  # fmt: skip
    assert judge.knows_answers


# --- faults and versions ----------------------------------------------------------------------------------


def test_what_is_no_judge_is_refused(tmp_path):
    with pytest.raises(BdpoError, match="label 'LABEL_0' has no meaning here"):
        Classifier(save_classifier(tmp_path / "unnamed", ["LABEL_0", "LABEL_1"], [0.0, 0.0]))
    tiny_model().save_pretrained(tmp_path / "chat")
    tiny_tokenizer().save_pretrained(tmp_path / "chat")
    with pytest.raises(BdpoError, match="is no judge that is known"):
        Classifier(tmp_path / "chat")
    with pytest.raises(BdpoError, match="No model folder at"):
        Classifier(tmp_path / "none")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    with pytest.raises(BdpoError, match="Cannot load the judge in"):
        Classifier(tmp_path / "broken")
    with pytest.raises(BdpoError, match="needs a model"):
        make_judge("classifier")
    with pytest.raises(BdpoError, match="leave the endpoint out"):
        make_judge("classifier", model="m", endpoint="http://localhost")


def test_other_weights_are_another_version(tmp_path):
    one = Classifier(save_classifier(tmp_path / "one", ["safe", "unsafe"], [0.0, 1.0]))
    again = Classifier(tmp_path / "one")
    two = Classifier(save_classifier(tmp_path / "two", ["safe", "unsafe"], [0.0, 2.0]))
    assert one.version == again.version != two.version


@pytest.mark.parametrize("name", ["guard", "harmbench"])
def test_a_generative_judge_whose_logits_are_nan_gives_no_verdict(tmp_path, name):
    folder = save_chain(tmp_path / name, {}, GUARD_TEMPLATE)
    model = LlamaForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data.fill_(math.nan)
    model.save_pretrained(folder)
    with pytest.raises(BdpoError, match="gives logits that are not finite: its weights are damaged"):
        Classifier(folder)(["p"], ["one"])
