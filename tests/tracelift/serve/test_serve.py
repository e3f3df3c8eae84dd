"""The server as its clients see it: the real openai library, the authors' schema, and a training run that uses both."""

import json
import signal
import threading
import time

import pytest
import torch

import models
from support.ports import quiet_port
from support.serving import KEY, Served
from support.tiny_job import executor_rows, planner_arguments, problem, sums
from tracelift.executor.backend import CompletionRequest
from tracelift.executor.local import LocalBackend
from tracelift.executor.remote.client import RemoteBackend
from tracelift.reward_model.remote import RemoteScorer
from tracelift.reward_model.scorer import LocalScorer, ScoreItem
from tracelift.sampler import SamplingParams


@pytest.fixture(scope="module")
def served(job):
    served = Served("--executor", str(job / "executor"), "--reward-model", str(job / "reward_model"))
    yield served
    served.close()


@pytest.fixture(scope="module")
def local(job):
    model, tokenizer = models.load_pretrained(job / "executor"), models.load_tokenizer(job / "executor")
    return LocalBackend(model, tokenizer)


@pytest.fixture(scope="module")
def openai_client(served):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=300)


PROMPTS = [row["prompt"] for row in executor_rows(6)]


def test_the_openai_library_lists_and_completes(openai_client, local):
    assert [m.id for m in openai_client.models.list()] == ["executor", "reward_model"]
    reply = openai_client.completions.create(model="executor", prompt=PROMPTS, max_tokens=4, temperature=0)
    expected = local.complete([CompletionRequest(p, 4, 0.0) for p in PROMPTS])
    assert [c.text for c in reply.choices] == [r.text for r in expected]
    assert [c.index for c in reply.choices] == list(range(len(PROMPTS)))
    assert reply.usage.completion_tokens == sum(r.tokens for r in expected)
    assert reply.usage.prompt_tokens == sum(len(local.tokenizer.encode(p)) for p in PROMPTS)
    assert reply.usage.total_tokens == reply.usage.completion_tokens + reply.usage.prompt_tokens
    assert {c.finish_reason for c in reply.choices} <= {"stop", "length"}
    assert reply.model == "executor" and reply.object == "text_completion"


def test_its_models_are_known_by_their_weights(served, local, job):
    """Executor and Reason RM: what the clients put into the keys of what they keep."""
    rm = LocalScorer(models.load_reward_model(job / "reward_model"), models.load_tokenizer(job / "reward_model"))
    listed = {row["id"]: row["fingerprint"] for row in served.ask("/v1/models")[1]["data"]}
    assert listed == {"executor": local.fingerprint, "reward_model": rm.fingerprint}
    assert local.fingerprint in RemoteBackend(served.url, "executor", KEY).served
    scorer = RemoteScorer(served.url, KEY)
    assert scorer.served == rm.fingerprint
    known = scorer.fingerprint
    assert RemoteScorer(served.url, KEY, max_tokens=7).fingerprint != known, "sent with each call, so it changes scores"
    scorer.served = "other weights"
    assert scorer.fingerprint != known


def test_a_seed_names_the_draws_whoever_else_asks(openai_client, local):
    ask = lambda **options: openai_client.completions.create(  # noqa: E731
        model="executor", prompt=PROMPTS[0], max_tokens=6, temperature=1.5, **options
    )
    alone = [c.text for c in ask(n=3, seed=7).choices]
    assert len(alone) == 3 and alone[0] == local.complete([CompletionRequest(PROMPTS[0], 6, 1.5, seed=7)])[0].text
    together = openai_client.completions.create(
        model="executor", prompt=[PROMPTS[1], PROMPTS[0]], max_tokens=6, temperature=1.5, seed=7, n=3
    )
    assert [c.text for c in together.choices[3:]] == alone
    assert (
        len({tuple(c.text for c in ask(n=4).choices) for _ in range(3)}) > 1
    )  # without a seed each call is another draw


def test_ids_echo_stop_and_logprobs(openai_client, local):
    ids = local.tokenizer.encode(PROMPTS[0])
    plain = openai_client.completions.create(model="executor", prompt=PROMPTS[0], max_tokens=6, temperature=0)
    by_ids = openai_client.completions.create(model="executor", prompt=ids, max_tokens=6, temperature=0, logprobs=1)
    assert by_ids.choices[0].text == plain.choices[0].text and plain.choices[0].logprobs is None
    found = by_ids.choices[0].logprobs
    made = local.sampler.generate([ids], SamplingParams(max_new_tokens=6, temperature=0))[0][0]
    torch.testing.assert_close(torch.tensor(found.token_logprobs), torch.tensor(made.logprobs))
    assert "".join(found.tokens) == local.tokenizer.decode(made.tokens, skip_special=False)
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]
    echoed = openai_client.completions.create(
        model="executor", prompt=PROMPTS[0], max_tokens=6, temperature=0, echo=True
    )
    assert echoed.choices[0].text == PROMPTS[0] + plain.choices[0].text
    digit = plain.choices[0].text.strip()[-1]
    stopped = openai_client.completions.create(
        model="executor", prompt=PROMPTS[0], max_tokens=6, temperature=0, stop=[digit]
    )
    assert digit not in stopped.choices[0].text and stopped.choices[0].finish_reason == "stop"


def test_given_texts_are_scored_as_harnesses_do_it(openai_client, local):
    """Echo with log-probabilities: each of a text's tokens, beside the most likely one, as a plain forward pass has them."""
    ask = lambda **how: openai_client.completions.create(model="executor", prompt=texts, echo=True, logprobs=1, **how)  # noqa: E731
    texts = [local.tokenizer.encode(p) for p in [*PROMPTS, PROMPTS[0] + "7", "x"]]
    for reply in (ask(max_tokens=1, seed=3, temperature=0.5), ask(max_tokens=0)):
        for ids, choice in zip(texts, reply.choices, strict=True):
            with torch.inference_mode():
                law = local.model.logits(local.model(torch.tensor([ids])))[0].double().log_softmax(-1)
            found, n = choice.logprobs, len(ids)
            assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
            expected = law[range(n - 1), ids[1:]]
            torch.testing.assert_close(torch.tensor(found.token_logprobs[1:n]).double(), expected, rtol=1e-5, atol=1e-5)
            best = torch.tensor([max(top.values()) for top in found.top_logprobs[1:n]]).double()
            torch.testing.assert_close(best, law[:-1].max(-1).values, rtol=1e-5, atol=1e-5)
            greedy = [
                v == max(top.values())
                for v, top in zip(found.token_logprobs[1:n], found.top_logprobs[1:n], strict=True)
            ]
            assert greedy == (law[:-1].argmax(-1) == torch.tensor(ids[1:])).tolist()
            assert "".join(found.tokens[:n]) == local.tokenizer.decode(ids, skip_special=False)
            assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]
            assert len(found.tokens) == n + reply.usage.completion_tokens // len(texts)
    assert [c.text for c in reply.choices] == [local.tokenizer.decode(ids) for ids in texts], "nothing was written"


def test_what_common_clients_send_is_taken(openai_client, served, local):
    """vLLM's spelling of no truncation, a template's prompt, null for a default; a model asked for by its name."""
    plain = openai_client.completions.create(model="executor", prompt=PROMPTS[0], max_tokens=6, temperature=0)
    extra = {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "add_special_tokens": False, "max_tokens": 6}
    body = {"prompt": PROMPTS[0], "temperature": 0, "top_p": 1, "seed": None, "stop": None, **extra}
    assert served.ask("/v1/completions", body)[1]["choices"][0]["text"] == plain.choices[0].text
    assert (
        served.ask("/v1/completions", {"prompt": PROMPTS[0], "max_tokens": None})[1]["usage"]["completion_tokens"] <= 16
    )
    assert openai_client.models.retrieve("executor").id == "executor"
    status, reply = served.ask("/v1/models/other")
    assert status == 404 and "/v1/models/executor" in reply["error"]["message"]
    for bad in ({"repetition_penalty": 1.1}, {"top_k": -2}, {"add_special_tokens": 1}, {"max_tokens": 0}):
        assert served.ask("/v1/completions", {"prompt": "a", **bad})[0] == 400, bad


def test_what_is_refused_is_the_librarys_own_error(openai_client, served):
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.BadRequestError, match="max_tokens of 90 beside a prompt of"):
        openai_client.completions.create(model="executor", prompt=PROMPTS[0], max_tokens=90)
    with pytest.raises(openai.NotFoundError, match="'gpt' is not served here"):
        openai_client.completions.create(model="gpt", prompt="x")
    with pytest.raises(openai.AuthenticationError, match="key is missing or wrong"):
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="guess", max_retries=0).models.list()


def settled(log):
    """How many lines the log has once no more come: the thread that reads it may lag behind the replies."""
    lines = -1
    while lines != len(log):
        lines = len(log)
        time.sleep(1.0)
    return lines


def test_requests_that_come_together_share_a_batch(served):
    before, replies = settled(served.log), []

    def ask(i):
        replies.append(
            served.ask(
                "/v1/completions", {"prompt": [PROMPTS[i % 6]] * 20, "max_tokens": 40, "temperature": 2.0, "n": 2}
            )
        )

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [status for status, _ in replies] == [200] * 6 and all(len(r["choices"]) == 40 for _, r in replies)
    settled(served.log)
    counts = [line.split(" completions of ") for line in served.log[before:] if " completions of " in line]
    assert sum(int(c[0].split()[-1]) for c in counts) == 240
    assert max(int(c[1].split()[0]) for c in counts) > 1


ITEMS = [ScoreItem("math", problem(a, b), f"{a} + {b} = {a + b + k}") for a, b in sums(5, 9) for k in (0, 1)]


def test_scores_are_those_of_the_model_in_this_process(served, job):
    rm = LocalScorer(models.load_reward_model(job / "reward_model"), models.load_tokenizer(job / "reward_model"))
    expected = rm.score(ITEMS)
    items = [{"problem": i.problem, "reasoning": i.reasoning, "task_name": "math", "task_type": ""} for i in ITEMS]
    for extra in ({}, {"max_length": 96, "batch_size": 2}):
        status, reply = served.ask("/score", {"items": items, **extra})
        assert status == 200 and reply["scores"] == pytest.approx([s.total for s in expected], abs=1e-6)
    remote = RemoteScorer(served.url, KEY)
    assert remote.dimension_names == rm.dimension_names
    for a, b in zip(remote.score(ITEMS + ITEMS[:3]), expected + expected[:3], strict=True):
        assert (a.total, a.derived, a.head, *a.dimensions) == pytest.approx(
            (b.total, b.derived, b.head, *b.dimensions), abs=1e-5
        )


def test_what_does_not_fit_has_no_score(served):
    """Neither 0.5 nor a failure of the items beside it."""
    long = ScoreItem("math", "p", "x " * 400)
    good, bad = RemoteScorer(served.url, KEY).score([ITEMS[0], long])
    assert good.error is None and "does not fit" in bad.error


def test_the_remote_executor_gets_what_the_local_one_says(served, local):
    requests = [CompletionRequest(p, 6, 1.0, ("\n",), seed) for p in PROMPTS for seed in (1, 2**63 + 5, 2**64 - 1)]
    assert RemoteBackend(served.url, "executor", KEY).complete(requests) == local.complete(requests)


@pytest.fixture(scope="module")
def keyless(job):
    """Ended by the last test of this file."""
    served = Served("--executor", str(job / "executor"), "--reward-model", str(job / "reward_model"), key=None)
    yield served
    served.process.kill()
    served.process.wait()
    served.process.stderr.close()


def test_training_with_served_models_is_training_with_local_ones(job, server, keyless, out):
    """Verdicts and rewards agree although half of the executor's seeds do not fit a signed integer."""
    server.done(*planner_arguments(job, out / "local"))
    server.done(
        *planner_arguments(
            job,
            out / "served",
            "--executor.url",
            keyless.url,
            "--reward_model.url",
            keyless.url,
            "--executor.path",
            "",
            "--reward_model.path",
            "",
        )
    )
    local, remote = (
        [json.loads(line) for line in (out / name / "samples.jsonl").read_text().splitlines()]
        for name in ("local", "served")
    )
    assert len(local) == len(remote) > 0 and any(s["success_with"] for s in local) and any(s["rm_total"] for s in local)
    exact = (
        "text",
        "trace",
        "artifact",
        "runs",
        "verdicts",
        "base_runs",
        "e2e",
        "success_with",
        "success_base",
        "error",
    )
    for a, b in zip(local, remote, strict=True):
        assert {k: a[k] for k in exact} == {k: b[k] for k in exact}
        for k in ("rm_total", "rm_derived", "rm_head", "reward"):
            assert a[k] == pytest.approx(b[k], abs=1e-5)


def test_training_without_its_reason_rm_stops_before_it_starts(job, server, out):
    url = f"http://127.0.0.1:{quiet_port()}"
    ended = server.run(*planner_arguments(job, out, "--reward_model.url", url, "--reward_model.retries", "0"))
    assert ended.code == 1 and f"reward_model.url: nobody listens at {url}" in ended.message
    ended = server.run(*planner_arguments(job, out, "--reward_model.url", url, "--reward_model.key_env", "NO_SUCH_KEY"))
    assert ended.code == 1 and "NO_SUCH_KEY is not set" in ended.message


def test_told_to_stop_it_answers_what_was_asked(keyless):
    before, found = len(keyless.log), []
    body = {"prompt": PROMPTS[:4], "n": 60, "max_tokens": 40, "temperature": 2.0}
    threads = [threading.Thread(target=lambda: found.append(keyless.ask("/v1/completions", body))) for _ in range(3)]
    for t in threads:
        t.start()

    def all_received():
        """One runs, the others wait or are answered; where the third is the only one left, it must be answered too."""
        answered = sum(not t.is_alive() for t in threads)
        queued = sum(keyless.ask("/health")[1]["queued"].values())
        return answered == 3 or (answered < 2 and answered + queued >= 2)

    while not all_received():
        pass
    keyless.process.send_signal(signal.SIGTERM)
    for t in threads:
        t.join()
    answered = [reply for status, reply in found if status == 200]
    assert len(answered) >= 2 and all(len(r["choices"]) == 240 for r in answered)
    assert {status for status, _ in found} <= {200, 503}, "the third may have come after the signal"
    assert keyless.process.wait(timeout=300) == 0
    keyless.wait_for("stopped", before)
    with pytest.raises(ConnectionError):
        keyless.ask("/health")
