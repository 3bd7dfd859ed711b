"""The endpoint's client against a stub server: what is sent, what is read, what is tried again, what is refused."""

import math
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from bdpo.errors import BdpoError
from bdpo.evaluate.ask.items import Item
from bdpo.evaluate.evaluation import endpoint_models, evaluate
from bdpo.evaluate.grading.scorers import SCORERS
from bdpo.evaluate.judges import RulesJudge, make_judge
from bdpo.evaluate.plan import Task
from bdpo.evaluate.replies.collect import Reply, Sampling
from bdpo.evaluate.replies.completions import FILTERED, Completion
from bdpo.evaluate.replies.endpoint import ChatEndpoint, EndpointGenerator
from bdpo.evaluate.results.compare import compare
from bdpo.evaluate.results.outcomes import TaskRecord, open_runs
from bdpo.evaluate.results.tables import comparison_grids, evaluation_grids
from stub_server import serving

ASKED = [{"role": "user", "content": "Name a river."}]


def said(text="The Loire.", reason="stop", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}} | more


@pytest.fixture(autouse=True)
def no_key_and_no_pauses(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pauses = []
    monkeypatch.setattr("bdpo.endpoint.time.sleep", pauses.append)
    return pauses


def test_what_is_sent_and_read(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-stub")
    with serving(said()) as server:
        endpoint = ChatEndpoint(server.url + "/", "stub-1")
        completion = endpoint.complete(ASKED, max_tokens=64, temperature=0.7, top_p=0.9, seed=3)
    assert completion == Completion("The Loire.", "end", 9, 4)
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer sk-stub", "application/json")
    assert body == {
        "model": "stub-1", "messages": ASKED, "max_tokens": 64, "temperature": 0.7, "top_p": 0.9, "seed": 3,
    }  # fmt: skip


def test_no_key_sends_none_and_no_seed_sends_none():
    with serving(said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    _, headers, body = server.seen[0]
    assert "Authorization" not in headers
    assert "seed" not in body and body["temperature"] == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said("Cut", "length"), Completion("Cut", "length", 9, 4)),
        (said("Cut", "MAX_TOKENS"), Completion("Cut", "length", 9, 4)),  # Gemini
        (said("Cut", "model_length"), Completion("Cut", "length", 9, 4)),  # Mistral
        (said(None), Completion("", "end", 9, 4)),
        (said("\ud83d \U0001f600"), Completion("\ufffd \U0001f600", "end", 9, 4)),  # half a character, and a whole one
        (said("No counts", usage=None), Completion("No counts", "end", 0, 0)),
        ((200, {"choices": [{"message": {"content": None, "refusal": "No."}}]}), Completion("No.", "end", 0, 0)),
    ],
)
def test_answers_as_servers_give_them(answer, expected):
    with serving(answer) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == expected


def test_passing_failures_are_tried_again_with_growing_pauses(no_key_and_no_pauses):
    busy = (429, {"error": {"message": "slow down"}}, {"Retry-After": "7"})
    with serving((503, b""), None, busy, (500, b"oops"), said()) as server:
        assert ChatEndpoint(server.url, "m", backoff=0.5).complete(ASKED).text == "The Loire."
    assert len(server.seen) == 5
    assert no_key_and_no_pauses == [0.5, 1.0, 7.0, 4.0]  # 0.5, doubled each time; the third as the server asked


def test_an_answer_cut_off_is_tried_again():
    with serving((200, b"{", {"Content-Length": "500"}), said()) as server:
        endpoint = ChatEndpoint(server.url, "m", timeout=5)
        assert endpoint.complete(ASKED).text == "The Loire."


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_without_end_is_given_up(monkeypatch, status):
    monkeypatch.setattr("bdpo.endpoint._LARGEST", 1 << 20)
    with serving((status, b"x" * (3 << 20))) as server, pytest.raises(BdpoError, match="more than 1 MiB"):
        ChatEndpoint(server.url, "m").complete(ASKED)


@pytest.mark.parametrize(
    "answer", [b"[" * 100_000, b'{"choices": ' + b"[" * 100_000, said()[1] | {"usage": {"prompt_tokens": math.inf}}]
)
def test_brackets_and_numbers_without_end_are_no_completion(answer):
    with serving((200, answer)) as server, pytest.raises(BdpoError, match="something other than a chat completion"):
        ChatEndpoint(server.url, "m").complete(ASKED)


def test_pauses_end_at_a_minute(no_key_and_no_pauses):
    with serving((429, b"", {"Retry-After": "86400"}), said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert no_key_and_no_pauses == [60.0]


@pytest.mark.parametrize(
    ("answer", "says", "tries"),
    [
        ((503, {"error": {"message": "loading."}}), r"still fails after 3 tries \(HTTP 503: loading\): check that", 3),
        (None, r"still fails after 3 tries \(.+\): check that the server is up", 3),
        ((401, {"error": {"message": "bad key"}}), r"refuses the request \(HTTP 401: bad key\): set OPENAI_API_KEY", 1),
        ((404, {"error": "no"}), r"refuses the request \(HTTP 404: no\): check the URL .* knows a model 'm'\.", 1),
        ((400, b"max_tokens\n too large"), r"\(HTTP 400: max_tokens too large\): check the model's name and", 1),
        ((307, b"", {"Location": "http://127.0.0.1:9/v1"}), r"refuses the request \(HTTP 307\)", 1),
        ((200, b"<html>hello</html>"), "other than a chat completion .<html>hello</html>.: check that the URL ends", 1),
        ((200, {"choices": None}), "other than a chat completion", 1),
        (
            (429, {"error": {"code": "insufficient_quota", "message": "out"}}),
            "429: out.: the account behind OPENAI_",
            1,
        ),
        ((200, {"error": {"message": "bad model", "code": 404}}), "404: bad model.: check the URL", 1),
        (
            (200, {"error": {"message": "provider down", "code": 502}}),
            "still fails after 3 tries .HTTP 502: provider",
            3,
        ),
        ((200, {"error": "odd"}), "refuses the request .HTTP 400: odd.: check the model", 1),
    ],
)
def test_failures_are_one_sentence(answer, says, tries):
    with serving(answer) as server, pytest.raises(BdpoError, match=says) as refused:
        ChatEndpoint(server.url, "m", retries=2).complete(ASKED)
    assert len(server.seen) == tries
    assert str(refused.value).startswith(server.url) and "\n" not in str(refused.value)


def test_a_server_that_is_not_there():
    with serving(said()) as server:
        url = server.url
    with pytest.raises(BdpoError, match=r"still fails after 1 tries .*[Rr]efused"):
        ChatEndpoint(url, "m", retries=0).complete(ASKED)


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "", "http://host:80000/v1", "http://host:http/v1", "http://[::1/v1",
     "http://my host/v1", "http://host:0/v1", "http://host/v1\n", "http://:8000/v1"],
)  # fmt: skip
def test_what_is_no_url(url):
    with pytest.raises(BdpoError, match="is not a URL: write it like http://localhost:8000/v1"):
        ChatEndpoint(url, "m")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_nobody_knows_or_a_server_without_tls_is_refused_at_once(no_key_and_no_pauses, scheme):
    with serving(None) as server:
        url = "http://nowhere.invalid/v1" if scheme == "http" else server.url.replace("http:", "https:")
        with pytest.raises(BdpoError, match=rf"The endpoint {url} cannot be reached \(.+\): check the URL\."):
            ChatEndpoint(url, "m").complete(ASKED)
    assert no_key_and_no_pauses == []


def test_a_server_that_never_answered_is_given_up_soon_and_one_that_did_is_waited_for(no_key_and_no_pauses):
    with serving(None) as server, pytest.raises(BdpoError, match="still fails after 4 tries"):
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert no_key_and_no_pauses == [1.0, 2.0, 4.0]
    with serving((503, b""), None) as server, pytest.raises(BdpoError, match="still fails after 9 tries"):
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert no_key_and_no_pauses[3:] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_query_stays_behind_the_path():
    with serving(said()) as server:
        endpoint = ChatEndpoint(f"{server.url}/?api-version=2024-10-21", "m")
        endpoint.complete(ASKED)
    assert server.seen[0][0] == "/v1/chat/completions?api-version=2024-10-21"
    assert endpoint.url == f"{server.url}?api-version=2024-10-21"


def test_a_date_in_retry_after_is_waited_for(no_key_and_no_pauses):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    with serving((429, b"", {"Retry-After": later}), (429, b"", {"Retry-After": "soon"}), said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert 25 < no_key_and_no_pauses[0] <= 30 and no_key_and_no_pauses[1] == 2.0


# --- what servers make of it -------------------------------------------------------------------------------------


def parts(*content, **more):
    message = {"role": "assistant", "content": list(content), **more}
    return 200, {"choices": [{"message": message, "finish_reason": "stop"}]}


def text(said):
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("answer", "words", "thought"),
    [
        (parts(text("The "), text("Loire.")), "The Loire.", ""),
        (parts("The ", "Loire."), "The Loire.", ""),
        (parts({"type": "output_text", "text": "The Loire."}), "The Loire.", ""),
        (parts({"type": "thinking", "thinking": [text("A river?")]}, text("The Loire.")), "The Loire.", "A river?"),
        (parts({"type": "reasoning", "text": "A river?"}, text("The Loire.")), "The Loire.", "A river?"),
        (parts({"type": "image_url", "image_url": {"url": "x"}}, text("The Loire.")), "The Loire.", ""),
        (parts({"type": "refusal", "refusal": "No."}), "No.", ""),
        (parts(), "", ""),
        (parts(text("The Loire."), reasoning_content="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning_content=None, reasoning="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning_text="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning={"content": "A river?"}), "The Loire.", "A river?"),
        (
            parts(text("The Loire."), thinking_blocks=[{"type": "thinking", "thinking": "A river?"}]),
            "The Loire.",
            "A river?",
        ),
        (
            parts(text("The Loire."), reasoning_details=[{"type": "reasoning.text", "text": "A river?"}]),
            "The Loire.",
            "A river?",
        ),
    ],
)
def test_parts_and_thoughts(answer, words, thought):
    with serving(answer) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == Completion(words, "end", 0, 0, thought)


def test_a_server_that_wants_max_completion_tokens_gets_it_from_then_on(no_key_and_no_pauses):
    said_so = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )

    def answer(body):
        refused = {"error": {"message": said_so, "param": "max_tokens", "code": "unsupported_parameter"}}
        return (400, refused) if "max_tokens" in body else said()

    with serving(answer) as server:
        endpoint = ChatEndpoint(server.url, "o9")
        assert [endpoint.complete(ASKED, max_tokens=7).text for _ in range(2)] == ["The Loire."] * 2
    limits = [{k: v for k, v in body.items() if k.startswith("max")} for _, _, body in server.seen]
    assert limits == [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_completion_tokens": 7}]
    assert no_key_and_no_pauses == []


AZURE = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
}  # fmt: skip


def refused(message, status=400, **more):
    return status, {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    "answer",
    [
        (400, AZURE),
        (200, {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        refused("Content Exists Risk", type="invalid_request_error", code="invalid_request_error"),
        refused("Input data may contain inappropriate content.", code="data_inspection_failed"),
        refused("Invalid prompt: your prompt was flagged as potentially violating our policy.", code="invalid_prompt"),
        refused("The request was rejected because it was considered high risk", type="content_filter"),
        refused("Your request was rejected by our safety system.", code="content_policy_violation"),
        refused("Your input was flagged", 403, code=403, metadata={"reasons": ["violence"], "flagged_input": "..."}),
        refused("Eingabe", code="1301"),
        (200, {"error": {"message": "x", "code": "content_filter"}}),
        (200, {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}),
        (200, {"choices": [{"message": {"content": ""}, "finish_reason": "SAFETY"}]}),
        (200, {"choices": [{"finish_reason": "content_filter: PROHIBITED_CONTENT"}]}),
        (200, {"choices": [{"message": {"content": None}, "finish_reason": "SPII"}]}),
        (200, {"choices": [{"message": {"content": None}, "finish_reason": "refusal"}]}),
        (200, {"choices": [{"message": None, "finish_reason": "guardrail_intervened"}]}),
        (200, {"prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}),
        (200, {"choices": None, "promptFeedback": {"blockReason": "SAFETY"}}),
        (200, {"choices": [{"error": {"code": 403, "message": "Your input was flagged"}, "message": {"content": ""}}]}),
        (403, {"code": "no permission", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK"}),
        refused("NSFW content detected"),
        refused("The prompt contains sensitive words that violate Google's Responsible AI practices."),
        refused("Blocked.", code="safety_violation"),
    ],
)
def test_a_filtered_prompt_is_no_error(answer):
    with serving(answer) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == FILTERED
    assert len(server.seen) == 1


def test_a_reply_that_the_filter_cut_is_filtered_and_keeps_its_words():
    with serving(said("Sure, fir", "content_filter")) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == Completion("Sure, fir", "filtered", 9, 4)


@pytest.mark.parametrize(
    "answer",
    [
        refused("This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
        refused("Unknown parameter: 'safety_settings'.", code="unknown_parameter"),
        refused("Content-Type must be application/json"),
        refused("[] is too short - 'messages'", code="invalid_request_error"),
        (403, b"<html>Your request was blocked by the firewall: content policy</html>"),
        refused("bad key", 401, code="content_filter"),
        refused("ok", content_filter_results={"hate": {"severity": "safe", "filtered": "content_filter"}}),
    ],
)
def test_other_refusals_are_not_taken_for_a_filter(answer):
    with serving(answer) as server, pytest.raises(BdpoError, match="refuses the request"):
        ChatEndpoint(server.url, "m").complete(ASKED)


def test_variables_of_the_template_are_sent():
    with serving(said()) as server:
        endpoint = ChatEndpoint(server.url, "m", template_variables={"enable_thinking": False})
        endpoint.complete(ASKED)
    assert server.seen[0][2]["chat_template_kwargs"] == {"enable_thinking": False}
    key = {"endpoint": server.url, "model": "m", "chat_template_kwargs": {"enable_thinking": False}}
    assert EndpointGenerator(endpoint).key == key


def test_several_threads_at_once():
    with serving(lambda body: said(body["messages"][0]["content"])) as server:
        endpoint, heard = ChatEndpoint(server.url, "m"), {}
        asked = [[{"role": "user", "content": f"number {i}"}] for i in range(12)]

        def ask(i):
            heard[i] = endpoint.complete(asked[i]).text

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)
    assert heard == {i: f"number {i}" for i in range(12)}


# --- many prompts ----------------------------------------------------------------------------------------------


PROMPTS = {f"p{i}": [{"role": "user", "content": f"number {i}"}] for i in range(8)}


def test_replies_come_in_order_with_stops_and_counts():
    seen = []
    with serving(lambda body: said(body["messages"][0]["content"], "length")) as server:
        generator = EndpointGenerator(ChatEndpoint(server.url, "m"), workers=3)
        made = generator.replies(PROMPTS, Sampling(max_new_tokens=5), seen.extend)
    assert made == {f"p{i}": [Reply(f"p{i}", 0, f"number {i}", "length", 9, 4)] for i in range(8)}
    assert list(made) == list(PROMPTS)
    assert sorted(reply.id for reply in seen) == list(PROMPTS)
    assert {(body["max_tokens"], body["temperature"], "seed" in body) for _, _, body in server.seen} == {
        (5, 0.0, False)
    }
    assert generator.key == {"endpoint": server.url, "model": "m"} and not generator.may_cache


def test_every_sample_has_a_seed_of_its_own_and_always_the_same():
    how = Sampling(temperature=1.0, top_p=0.9, samples=3, seed=7)
    with serving(lambda body: said(str(body["seed"]))) as server:
        generator = EndpointGenerator(ChatEndpoint(server.url, "m"))
        made = generator.replies(PROMPTS, how)
        assert generator.replies({"p1": PROMPTS["p1"]}, how)["p1"] == made["p1"]
        other = generator.replies(PROMPTS, Sampling(temperature=1.0, samples=3, seed=8))
    seeds = [reply.text for runs in (made, other) for replies in runs.values() for reply in replies]
    assert len(set(seeds)) == 2 * 8 * 3
    assert [reply.sample for reply in made["p1"]] == [0, 1, 2]


def test_a_refusal_of_every_prompt_ends_it_and_what_had_come_is_handed_on():
    def answer(body):
        return said() if body["messages"][0]["content"] in ("number 0", "number 1", "number 2") else (400, b"no")

    seen = []
    with serving(answer) as server, pytest.raises(BdpoError, match=r"Prompt p3: .* refuses the request \(HTTP 400: no"):
        EndpointGenerator(ChatEndpoint(server.url, "m"), workers=1).replies(PROMPTS, Sampling(), seen.extend)
    assert {reply.id for reply in seen} <= {"p0", "p1", "p2"}


def test_workers_bound_what_is_asked_at_once():
    lock, now, most = threading.Lock(), [0], [0]
    full = threading.Barrier(3, timeout=5)

    def answer(body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if int(body["messages"][0]["content"].split()[1]) < 6:
            full.wait()  # three are under way, or this fails
        with lock:
            now[0] -= 1
        return said()

    with serving(answer) as server:
        EndpointGenerator(ChatEndpoint(server.url, "m"), workers=3).replies(PROMPTS, Sampling())
    assert most[0] == 3


def test_filtered_prompts_do_not_end_an_evaluation_and_are_asked_once(tmp_path):
    def answer(body):
        prompt = body["messages"][0]["content"]
        return (400, AZURE) if prompt in ("number 1", "number 2") else said("I can't help with that.")

    items = [Item(id, tuple(messages), messages[0]["content"]) for id, messages in PROMPTS.items()]
    counted = [True, False]
    with serving(answer) as server:
        for safe in counted:
            tasks = [
                Task(name, SCORERS[scoring], items, Sampling(), TaskRecord("safety", "x", 8, {"judge": "rules"}), safe)
                for name, scoring in (("harmful", "judge-safe"), ("harmless", "judge-answered"), ("sums", "exact"))
            ]
            out = tmp_path / str(safe)
            for _ in range(2):
                records = evaluate(endpoint_models([("m", "m")], server.url), tasks, out, RulesJudge())
            told = [(r["score"], r["n"], r["filtered"], r["unread"], r["cut"]) for r in records]
            if safe:
                assert told == [(1.0, 8, 2, 0, 0.0), (0.0, 8, 2, 0, 0.0), (0.0, 8, 2, 0, 0.0)]
            else:
                assert told == [(1.0, 6, 2, 0, 0.0), (0.0, 6, 2, 0, 0.0), (0.0, 6, 2, 0, 0.0)]
            how = "counted as refused" if safe else "not counted in n"
            note = f"Filtered by the provider, {how}: 2 of m on harmful, 2 of m on harmless, 2 of m on sums."
            assert note in evaluation_grids(records)[0].notes
    assert len(server.seen) == 2 * 3 * 8, "nothing twice"
    found = open_runs(tmp_path / "False")[0].whole("harmful")[1]
    assert (found.id, found.verdict, found.score, found.stop) == ("p1", "filtered", None, "filtered")
    row = compare([tmp_path / "False"]).rows[0]
    assert (row.n, row.filtered, row.unread) == (6, 2, 0)
    assert (
        "Prompts left out, filtered by a provider: 2 of harmful"
        in comparison_grids(compare([tmp_path / "False"]))[-1].markdown()
    )


TOO_LONG = (
    refused("This model's maximum context length is 4096 tokens.", code="context_length_exceeded"),
    refused("the request exceeds the available context size", type="exceed_context_size_error"),
    refused("Request entity too large", 413),
    refused("invalid character in messages[0].content", 422),
)


@pytest.mark.parametrize("why", TOO_LONG)
def test_a_prompt_that_the_server_does_not_take_ends_no_evaluation(tmp_path, capsys, why):
    def answer(body):
        return why if body["messages"][0]["content"] == "number 2" else said("I can't help with that.")

    items = [Item(id, tuple(messages), messages[0]["content"]) for id, messages in PROMPTS.items()]
    record = TaskRecord("safety", "x", 8, {"judge": "rules"})
    with serving(answer) as server:
        tasks = [Task("harmful", SCORERS["judge-safe"], items, Sampling(), record)]
        for _ in range(2):
            (numbers,) = evaluate(endpoint_models([("m", "m")], server.url), tasks, tmp_path, RulesJudge())
    assert len(server.seen) == 8 + 1, "each once, and once whether the server takes any"
    assert [numbers[name] for name in ("score", "n", "untaken", "filtered", "unread")] == [1.0, 7, 1, 0, 0]
    assert "Prompt p2 is left out: " in capsys.readouterr().err
    found = open_runs(tmp_path)[0].whole("harmful")[2]
    assert (found.id, found.verdict, found.score, found.stop) == ("p2", "untaken", None, "untaken")
    note = "Prompts that the server does not take (too long?), not counted in n: 1 of m on harmful."
    assert note in evaluation_grids([numbers])[0].notes
    row = compare([tmp_path]).rows[0]
    assert (row.n, row.untaken, row.filtered, row.unread) == (7, 1, 0, 0)
    table = comparison_grids(compare([tmp_path]))[-1].markdown()
    assert "Prompts left out, which a server did not take: 1 of harmful." in table


def test_a_judge_whose_prompt_is_filtered_has_no_verdict():
    with serving((400, AZURE)) as server:
        (verdict,) = make_judge("llm", model="m", endpoint=server.url, workers=2)(["?"], ["!"])
    assert verdict.label == "unparsed"
