"""A continuation reads as it stands in its text: its first space, characters cut between tokens, special tokens."""

import random

import pytest

import models
from models.text.continuation import CONTEXT
from support.tokenizer_styles import EVERY_KIND, write_kind

WORDS = [
    "The old tree",
    "    c = a + b",
    "\n",
    " rests",
    "café",
    "日本語",
    "😀👩‍👩‍👧",
    "48",
    " ",
    "  ",
    "\t",
    "ﬁ",
    "\ufffd",
]


@pytest.fixture(scope="module", params=EVERY_KIND)
def tokenizer(request, tmp_path_factory):
    return models.load_tokenizer(write_kind(tmp_path_factory.mktemp(request.param), request.param))


def texts(seed, count):
    rng = random.Random(seed)
    return ["".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(count)]


def test_a_text_cut_anywhere_joins_to_itself(tokenizer):
    for text in texts(0, 40):
        for first in (True, False):
            ids = tokenizer.encode(text, add_special_tokens=first)
            for at in range(len(ids) + 1):
                head, tail = tokenizer.decode(ids[:at]), tokenizer.decode(ids[at:], after=ids[:at])
                # What the head shows of a character that is cut is not part of the whole.
                kept = head if (head + tail) == text else head.rstrip("\ufffd")
                assert kept + tail == text, (text, at, head, tail)


def test_what_was_seen_of_the_prompt_does_not_depend_on_its_length(tokenizer):
    """Only the last tokens of a prompt are decoded again, also where those begin within a character."""
    start, whole = (tokenizer.encode(text, add_special_tokens=False) for text in ("x", "x tree é"))
    assert whole[: len(start)] == start
    reply = whole[len(start) :]
    for filler in ("The old tree ", "😀👩‍👩‍👧", "日"):
        prompt = tokenizer.encode(filler * CONTEXT + "x", add_special_tokens=True)
        assert tokenizer.decode(reply, after=prompt) == " tree é", filler


def test_pieces_join_to_the_text_and_each_character_is_whole(tokenizer):
    special = sorted(tokenizer.special_ids)
    rng = random.Random(1)
    for text in texts(2, 40):
        prompt, ids = tokenizer.encode("The old"), tokenizer.encode(text, add_special_tokens=False)
        for _ in range(2):
            ids.insert(rng.randint(0, len(ids)), rng.choice(special))
        pieces = tokenizer.pieces(ids, after=prompt)
        assert len(pieces) == len(ids)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special=False, after=prompt)
    ids = tokenizer.encode("x😀y", add_special_tokens=False)[1:]
    found = tokenizer.pieces(ids, after=prompt)
    assert [p for p in found if p] in (["😀", "y"], ["x", "😀", "y"], ["😀y"]), found


def test_bytes_that_never_become_a_character_stay_in_the_pieces(tokenizer):
    """Random ids: some decoders let a broken run spoil the characters before it."""
    rng = random.Random(3)
    for _ in range(60):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(1, 20))]
        for after in ((), ids[:3]):
            assert "".join(tokenizer.pieces(ids, after)) == tokenizer.decode(ids, skip_special=False, after=after)


def test_no_tokens_have_no_text(tokenizer):
    for after in ((), tokenizer.encode("The old")):
        assert tokenizer.decode([], after=after) == "" and tokenizer.pieces([], after) == []
