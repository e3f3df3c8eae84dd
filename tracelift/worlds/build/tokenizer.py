"""The byte-level BPE tokenizers of the demo worlds, trained on their own text with the `tokenizers` library.

Numbers are split into single digits (so that arithmetic is learned by place and not by rote) and every other word of a
closed world becomes one token. The reasoning tags are single added tokens, kept by decoding: the format check sees
exactly what the planner wrote.

In the code world merges may cross spaces (superword BPE, Liu et al. 2025, arXiv 2503.13423): a stock phrase such as
` for x in a]` becomes one token, and a whole program about twenty. Digits and the names of quantities stay apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

EOS, PAD = "<|end|>", "<|pad|>"
TAGS = ("<reasoning>", "</reasoning>", "<task>", "</task>", "<type>", "</type>", "<problem>", "</problem>")
WORDS = r" ?\d| ?[A-Za-z_]+|\n| ?[^\sA-Za-z0-9_]|\s+"
_ATOM = r" ?\d| ?(?<![A-Za-z])[pqrt](?![A-Za-z])| ?Then(?![A-Za-z])"  # a digit, a quantity's name, a connective
PHRASES = rf"{_ATOM}|\n|(?:(?!{_ATOM})[^.:,\n])+[.:,]?|[.:,]"


def train_tokenizer(corpus: Iterable[str], vocab_size: int, pieces: str = WORDS) -> Tokenizer:
    """A `tokenizers.Tokenizer` with at most `vocab_size` entries, ids 0 and 1 being padding and end of text.

    pieces: the pattern of what merges stay within, WORDS or PHRASES.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(PAD, special=True), AddedToken(EOS, special=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json, as Hugging Face folders hold them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": PAD}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"eos_token_id": tokenizer.token_to_id(EOS), "pad_token_id": tokenizer.token_to_id(PAD)}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
