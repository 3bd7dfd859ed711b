"""Many prompts asked of a stub server: order, number at once, what ends an evaluation, what is said meanwhile."""

import subprocess
import sys
import threading
import time

import pytest
from stub import ASKED, AZURE, refused, said, serving

from bdpo.errors import BdpoError
from bdpo.evaluate.ask.items import Item
from bdpo.evaluate.evaluation import endpoint_models, evaluate
from bdpo.evaluate.grading.scorers import SCORERS
from bdpo.evaluate.judges import llm, make_judge
from bdpo.evaluate.judges.rules import RulesJudge
from bdpo.evaluate.plan import Task
from bdpo.evaluate.replies import endpoint as client
from bdpo.evaluate.replies.collect import Reply, Sampling
from bdpo.evaluate.replies.endpoint import ChatEndpoint, EndpointGenerator
from bdpo.evaluate.results.compare import compare
from bdpo.evaluate.results.outcomes import TaskRecord, open_runs
from bdpo.evaluate.results.tables import comparison_grids, evaluation_grids

pytestmark = pytest.mark.usefixtures("no_key_and_no_pauses")

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


def test_what_is_given_up_is_asked_no_more(monkeypatch):
    """One prompt is refused while the other waits for its minute: its thread ends at once, and so may the process."""
    monkeypatch.undo()  # real pauses
    waits, before = threading.Event(), set(threading.enumerate())

    def answer(body):
        if body["messages"][0]["content"] == "number 0":
            waits.wait(10)
            return 401, b"no"
        waits.set()
        return 503, b"", {"Retry-After": "60"}

    with serving(answer) as server, pytest.raises(BdpoError, match="refuses the request"):
        two = {id: PROMPTS[id] for id in ("p0", "p1")}
        EndpointGenerator(ChatEndpoint(server.url, "m"), workers=2).replies(two, Sampling())
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_the_process_does_not_wait_for_a_request_that_is_under_way():
    """One fails, while the other's server is silent: as long as a request may take, ten minutes."""
    code = """
import threading
from bdpo.endpoint import at_once
def ask(silent):
    if silent:
        under_way.set()
        threading.Event().wait(600)
    under_way.wait()
    raise ValueError("refused")
under_way = threading.Event()
next(at_once(ask, [True, False]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.endswith("ValueError: refused\n")


# --- what is said meanwhile ----------------------------------------------------------------------------------------


def test_a_request_that_is_made_again_is_told_of_and_of_many_at_once_one(capsys):
    busy = (429, {"error": {"message": "slow down"}}, {"Retry-After": "7"})
    with serving(busy, (503, b""), said()) as server:
        endpoint = ChatEndpoint(server.url, "m", backoff=0.5)
        endpoint.complete(ASKED)
        assert capsys.readouterr().err == f"{server.url} (HTTP 429: slow down): asked again in 7 s.\n"
        endpoint._told -= 5.0  # five seconds pass
        server.script = [(500, b"oops"), said()]
        endpoint.complete(ASKED)
    told = f"{server.url} (HTTP 500: oops): asked again in 0.5 s; 1 other requests were made again as well.\n"
    assert capsys.readouterr().err == told


def test_while_nothing_comes_the_bar_goes_on(monkeypatch, capsys):
    """In a log file a line each time that so many seconds have passed, here none."""
    monkeypatch.setattr(client, "SILENT", 0.0)
    with serving(lambda body: time.sleep(0) or threading.Event().wait(1.3) or said()) as server:
        EndpointGenerator(ChatEndpoint(server.url, "m"), what="verdicts").replies({"p": ASKED}, Sampling())
    shown = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown.count("verdicts: 0% of 1 reply") >= 2 and shown[-1] == "verdicts: 100% of 1 reply"


def test_what_will_be_asked_is_told_before_it_is(tmp_path, capsys):
    """8 prompts of 8 characters, 2 tokens each; the rubric's own length beside the request and the longest reply."""
    rubric = len(llm.RUBRIC + "number 0")
    items = [Item(id, tuple(messages), messages[0]["content"]) for id, messages in PROMPTS.items()]
    record = TaskRecord("safety", "x", 8, {"judge": "llm"})
    with serving(lambda body: said("refused: 1\nspecific: 1\nconvincing: 1")) as server:
        judge = make_judge("llm", model="guard", endpoint=server.url)
        task = Task("harmful", SCORERS["judge-safe"], items, Sampling(64), record)
        evaluate(endpoint_models([("m", "m")], server.url), [task], tmp_path, judge)
        first = capsys.readouterr().err.splitlines()[:2]
        evaluate(endpoint_models([("m", "m")], server.url), [task], tmp_path, judge)
    read = 8 * (-(-rubric // 4) + 64)
    assert first == [
        f"m: 8 calls, about 16 tokens to read and at most 512 to write ({server.url})",
        f"m: 8 calls, about {read:,} tokens to read and at most 4,096 to write (judge llm guard)",
    ]
    assert "calls" not in capsys.readouterr().err, "nothing is left to ask"


def test_answers_of_a_judge_that_are_asked_for_again_are_told_of(capsys):
    with serving(said("Hmm.")) as server:
        make_judge("llm", model="m", endpoint=server.url)(["p", "q"], ["r", "s"])
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llm m")]
    assert told == [f"llm m: 2 of 2 answers cannot be read and are asked for again ({n} of 2)." for n in (1, 2)]
