"""What a reply says and where it stops, for tokenizers of every kind: in its context, and where a stop string is a special
token.

Which wrong texts would still pass? One that is right for byte-level tokenizers, which lose no space, so SentencePiece kinds
are asked too; one that finds stop strings only in what is shown, so random models are asked, which write special tokens as
often as any.
"""

import random

import pytest

import models
from support.tokenizer_styles import EVERY_KIND, write_kind
from tests.support.tiny_models import tiny
from tracelift.executor.backend import CompletionRequest, ScoreRequest, visible_text
from tracelift.executor.local import LocalBackend
from tracelift.programs.formats import CodeProblem
from tracelift.sampler import Completion, Sampler, SamplingParams

PROMPTS = ["The old", "x = [1, 2]\n", "Answer:"]


@pytest.fixture(scope="module", params=EVERY_KIND)
def tokenizer(request, tmp_path_factory):
    return models.load_tokenizer(write_kind(tmp_path_factory.mktemp(request.param), request.param))


class Scripted:
    """A sampler that writes what it is told."""

    eos_ids = frozenset()

    def __init__(self, tokens):
        self.tokens = tokens

    def generate(self, prompts, *_, **__):
        return [[Completion(self.tokens, [0.0] * len(self.tokens))] for _ in prompts]


def written(tokenizer, reply):
    """The tokens of `reply` where it goes on from a text, here from a letter that merges with nothing."""
    head, whole = (tokenizer.encode(text, add_special_tokens=False) for text in ("Z", "Z" + reply))
    assert whole[: len(head)] == head
    return whole[len(head) :]


@pytest.mark.parametrize("reply", ["    c = a + b\n    return c\n", " tree rests", "\n", " 72", "é"])
def test_a_reply_keeps_its_first_space(tokenizer, reply):
    model = tiny(vocab_size=tokenizer.vocab_size)
    for prompt in ("def add(a, b):\n", "The old", "Answer:"):
        backend = LocalBackend(model, tokenizer, Scripted(written(tokenizer, reply)))
        (found,) = backend.complete([CompletionRequest(prompt, 40)])
        assert prompt + found.text == prompt + reply


def test_a_function_body_stays_a_program(tokenizer):
    """HumanEval: the stub is the prompt, the body is written by the model."""
    stub, body = "def add(a, b):\n", "    c = a + b\n    return c\n"
    model, tokens = tiny(vocab_size=tokenizer.vocab_size), written(tokenizer, body)
    (reply,) = LocalBackend(model, tokenizer, Scripted(tokens)).complete([CompletionRequest(stub, 40)])
    problem = CodeProblem("p", "", hidden=(), entry_point="add", stub=stub)
    assert problem.program(reply.text) is not None


def stops_of(rng, tokenizer, prompt, tokens):
    """A piece of what is written, special tokens spelt, or one of those."""
    text = tokenizer.decode(tokens, skip_special=False, after=prompt)
    at, length = rng.randrange(len(text)), rng.randint(1, 5)
    marks = [tokenizer.id_to_token(t) for t in tokens if t in tokenizer.special_ids]
    stop = rng.choice(marks) if marks and rng.random() < 0.3 else text[at : at + length]
    return stop if "\ufffd" not in stop else None


def test_writing_stops_where_a_stop_string_is_complete(tokenizer):
    rng = random.Random(0)
    sampler = Sampler(tiny(vocab_size=tokenizer.vocab_size), (), 0, decode=tokenizer.decode)
    tried = special = 0
    for seed in range(40):
        prompt = tokenizer.encode(rng.choice(PROMPTS))
        free = sampler.generate([prompt], SamplingParams(max_new_tokens=16, seed=seed))[0][0].tokens
        stop = stops_of(rng, tokenizer, prompt, free)
        if not stop:
            continue
        shown = (tokenizer.decode(free[:k], skip_special=False, after=prompt) for k in range(1, 17))
        end = next((k for k, text in enumerate(shown, start=1) if stop in text), None)
        got = sampler.generate([prompt], SamplingParams(max_new_tokens=16, seed=seed, stop=(stop,)))[0][0]
        assert got.tokens == free[:end], (stop, end)
        assert got.stop_string == (stop if end else None)
        tried += 1
        text = visible_text(tokenizer, (), prompt, got.tokens, (stop,))
        spelt = tokenizer.decode(got.tokens, skip_special=False, after=prompt)
        if end and not any(t in tokenizer.special_ids for t in got.tokens):
            assert text == spelt[: spelt.index(stop)]
        special += any(t in tokenizer.special_ids for t in got.tokens)
    assert tried > 12 and special


def test_a_stop_string_that_is_a_special_token_stops_and_is_not_shown(tokenizer):
    mark = next(t for t in sorted(tokenizer.special_ids) if t not in tokenizer.eos_ids)
    spelt = tokenizer.id_to_token(mark)
    reply = [*written(tokenizer, " 72"), mark, *written(tokenizer, " 9")]
    prompt = tokenizer.encode("x")
    for stop in (spelt, spelt[1:], spelt + " "):
        text = visible_text(tokenizer, (), prompt, reply, (stop,))
        assert text == " 72" or (stop.endswith(" ") and text.startswith(" 72")), (stop, text)
    assert "9" in visible_text(tokenizer, (), prompt, reply, ("?",))


def test_an_answer_ends_with_a_token_that_begins_with_a_stop_string_also_with_a_space(tokenizer):
    backend = LocalBackend(tiny(vocab_size=tokenizer.vocab_size), tokenizer)
    spaced = {i for i in range(tokenizer.vocab_size) if tokenizer.decode([i], after=tokenizer.encode("x")) == " "}
    assert spaced and spaced <= set(backend._ends_at((" ",)))


def test_a_prompt_with_a_token_beyond_the_model_is_an_error_of_its_own(tokenizer):
    last = tokenizer.id_to_token(tokenizer.vocab_size - 1)
    backend = LocalBackend(tiny(vocab_size=tokenizer.vocab_size - 1), tokenizer)
    if tokenizer.vocab_size - 1 not in tokenizer.encode(f"x{last}"):
        pytest.skip("the last token is not spelt by its text")
    good, bad = backend.complete([CompletionRequest("x", 3), CompletionRequest(f"x{last}", 3)])
    assert good.error is None and f"{last!r}, and the model of {tokenizer.vocab_size - 1} rows has none" in bad.error
    good, bad = backend.score([ScoreRequest("x", ("7",)), ScoreRequest(f"x{last}", ("7",))])
    assert good.error is None and bad.error
