"""Small tokenizers of the kinds that today's models have, learnt here: each cuts text in another way."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from icm_hpc.scoring.tokenizer import LocalTokenizer
from icm_hpc.tasks import TASKS, files, reviews

SPECIALS = ["<unk>", "<s>", "</s>", "<|endoftext|>", "[INST]"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# As published for Llama 3: signs take line breaks with them, numbers are cut by threes.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _lines() -> Iterator[str]:
    """Yield lines from which each label word of the built-in tasks becomes one token."""
    yield from (row.text("text") for row in files.read_file(reviews.DATA))
    words = "".join(word for family in TASKS.values() for word in family.label_words)
    yield from [words + " Question: Claim: I think this claim is Review: Sentiment: Sentence: Topic:"] * 200


def _of_bytes(pre_tokenizer: Any) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([*_lines(), "a\n\nb\nc" * 99, "\n\n", "\n\n\n"] * 2, trainer)
    return made


def gpt2(*, prefix: bool = False) -> Tokenizer:
    """Return one that leaves the last of several line breaks to what follows, as those of GPT-2, SmolLM2 and others."""
    return _of_bytes(pre_tokenizers.ByteLevel(add_prefix_space=prefix))


def llama3() -> Tokenizer:
    """Return one with Llama 3's pattern, which normalizes as Qwen's, and adds a token before a text and one behind it."""
    split = pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated")
    made = _of_bytes(
        pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    )
    made.normalizer = normalizers.NFC()
    template = {"single": "<s> $A </s>", "pair": "<s> $A </s> $B </s>", "special_tokens": [("<s>", 1), ("</s>", 2)]}
    made.post_processor = processors.TemplateProcessing(**template)
    return made


@cache
def _sentencepiece_model() -> Any:
    """Return a vocabulary and merges of words with the space before them; line breaks are not among them."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=SPECIALS, show_progress=False)
    made.train_from_iterator(_lines(), trainer)
    return json.loads(made.to_str())["model"]


def _sentencepiece() -> Tokenizer:
    told = _sentencepiece_model()
    vocabulary = {**told["vocab"], **{one: len(told["vocab"]) + place for place, one in enumerate(BYTES)}}
    merges = [tuple(pair) for pair in told["merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.add_special_tokens(SPECIALS)
    return made


def llama2() -> Tokenizer:
    """Return one that puts a space before each text by normalization, and does not cut text beforehand."""
    made = _sentencepiece()
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    template = {"single": "<s> $A", "pair": "<s> $A <s> $B", "special_tokens": [("<s>", 1)]}
    made.post_processor = processors.TemplateProcessing(**template)
    return made


def gemma() -> Tokenizer:
    """Return one of the same kind that puts no space before a text."""
    made = _sentencepiece()
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return made


def metaspace(scheme: str) -> Tokenizer:
    """Return one that puts a space before a text, or before every part of it, and cuts at spaces."""
    made = _sentencepiece()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return made


def unigram() -> Tokenizer:
    """Return one that takes the most probable pieces; a line break is unknown to it."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=800, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(_lines(), trainer)
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": gpt2,
    "gpt2-prefix": lambda: gpt2(prefix=True),
    "llama3": llama3,
    "llama2": llama2,
    "gemma": gemma,
    "metaspace-first": lambda: metaspace("first"),
    "metaspace-always": lambda: metaspace("always"),
    "unigram": unigram,
}


def saved(folder: Path, made: Tokenizer) -> LocalTokenizer:
    """Write a tokenizer as a model's folder has it, and return what reads it."""
    made.save(str(folder / "tokenizer.json"))
    return LocalTokenizer("model", folder)
