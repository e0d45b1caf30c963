"""Lengths without a tokenizer: a guess for a forecast, and bounds that the counts of real tokenizers keep."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers

from icm_hpc import tasks
from icm_hpc.capacity import demand
from icm_hpc.capacity.plan import plan
from icm_hpc.config import loading
from icm_hpc.scoring import tokenizer
from icm_hpc.scoring.tokenizer import UNDERESTIMATE, at_least, at_most, estimate
from icm_hpc.serving import weights
from tests.conftest import require_vllm

TEXTS = {
    "Russian": "Столица Франции — Париж, и в нём живут два миллиона человек.",
    "Ukrainian": "Чи правда, що їжак їсть яблука? Так вважають діти.",
    "Greek": "Η πρωτεύουσα της Γαλλίας είναι το Παρίσι.",
    "Thai": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย และมีประชากรมากกว่าแปดล้านคน",
    "Chinese": "法国的首都是巴黎,人口约为二百一十万。",
    "Japanese": "フランスの首都はパリで、人口は約二百十万人です。",
    "Korean": "프랑스의 수도는 파리이며 인구는 약 이백십만 명이다.",
    "Arabic": "عاصمة فرنسا هي باريس ويسكنها مليونا نسمة.",
    "Hebrew": "בירת צרפת היא פריז.",
    "Hindi": "फ़्रांस की राजधानी पेरिस है और वहाँ बीस लाख लोग रहते हैं।",
    "Tamil": "பிரான்சின் தலைநகரம் பாரிஸ் ஆகும்.",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈😀🎉🇫🇷 ❤️🔥",
    "mathematics": "∀x∈ℝ: x² ≥ 0 ∧ ∑ᵢ aᵢ ≠ ∞",
    "French": "Les élèves français étaient déjà prêts à goûter les crêpes.",
    "Vietnamese": "Thủ đô của nước Pháp là Paris, nơi có hơn hai triệu người sinh sống.",
    "mixed": "Вопрос: is 東京 the capital? 😀 Ответ:",
    "German compounds": "Donaudampfschifffahrtsgesellschaftskapitaensmuetze",
    "digits": "3.14159265358979323846264338327950288 and 2 + 2 = 4",
    "a key": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "base64": "aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQgZW5jb2RlZCB0ZXh0IGZvciB5b3U=",
    "a sequence": "ACGTTGCAACGTAGCTAGCTAGGATCCGATCGATCGGATCAAGCTTCGATCG",
    "signs": "!!!???--->>><<<$$$%%%^^^&&&***",
    "capitals": "THIS IS ALL IN CAPITALS AND VERY LOUD INDEED",
}
ENGLISH = "Question: What is the capital of France?\nClaim: It is Paris, a large city.\nI think this claim is"


def of_bytes() -> Tokenizer:
    """Return a SentencePiece-like tokenizer that knows no word: a space before each text, then its bytes."""
    vocabulary = [("<unk>", 0.0), ("▁", -1.0), *((f"<0x{byte:02X}>", -10.0) for byte in range(256))]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.ByteFallback()
    return made


def count(tokens: Tokenizer, text: str) -> int:
    """Return how many tokens a text is."""
    return len(tokens.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("kind", TEXTS)
def test_no_tokenizer_of_bytes_has_more_tokens_than_the_bound(kind: str) -> None:
    text = TEXTS[kind]
    if not text.isascii():
        assert count(of_bytes(), text) <= at_most(text) == 1 + len(text.encode())
    assert at_most(text) <= 1 + len(text.encode()) * UNDERESTIMATE


@pytest.mark.vllm
@pytest.mark.parametrize("kind", TEXTS)
def test_the_bounds_hold_for_smollm2_and_the_guess_lies_between(kind: str) -> None:
    require_vllm()
    folder = weights.locate(loading.load(["model=smol"]).model)
    text = TEXTS[kind]
    real = count(Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), text)
    assert at_least(text) <= real <= at_most(text)
    assert at_least(text) <= estimate(text) <= max(at_most(text), 1.2 * at_least(text) + 1)
    assert real / 4 <= estimate(text) <= 2 * real


def test_of_english_the_guess_is_nearly_the_bound() -> None:
    assert 20 < at_least(ENGLISH) < estimate(ENGLISH) - 1 < at_most(ENGLISH) < 1.5 * at_least(ENGLISH)
    assert at_most(ENGLISH.replace("is Paris", "isn’t “Paris”")) < 2 * at_least(ENGLISH), (
        "signs of typography are English"
    )


def test_half_a_character_is_counted_and_no_error() -> None:
    assert at_least("\ud83d") < estimate("\ud83d") <= at_most("\ud83d")


@pytest.mark.parametrize("kind", ["Russian", "Thai", "Chinese", "Japanese", "emoji"])
def test_a_plan_without_a_tokenizer_refuses_what_no_tokenizer_could_fit_and_notes_what_some_could_not(
    tmp_path: Path, kind: str
) -> None:
    data = tmp_path / "claims.jsonl"
    rows = [{"question": f"{i} {TEXTS[kind]}", "choice": TEXTS[kind]} for i in range(20)]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    config = loading.load(["engine=openai", "task=claims", f"task.data={data}", "model.max_model_len=2048"])
    task = tasks.load(config.task, seed=0)
    needed = demand.demand_of(config, task, None)
    prompt = "".join(example.text + "." + task.separator for example in task.examples)
    assert needed.at_least < needed.longest < needed.at_most
    assert count(of_bytes(), prompt) <= needed.at_most < 1.1 * len(prompt.encode())
    found = plan(config, task)
    assert found.fits
    assert any(f"may be {needed.at_most:,} tokens" in note for note in found.notes)


def test_the_ids_of_an_estimate_are_as_many_as_it_says_and_equal_where_texts_are() -> None:
    ids = tokenizer.LocalTokenizer("m", None)._encode(TEXTS["Thai"], special=False)
    assert len(ids) == len(set(ids)) > 50
    assert tokenizer.LocalTokenizer("m", None)._encode(TEXTS["Thai"] + " end", special=False)[: len(ids)] == ids


def test_a_limit_in_a_tokenizers_file_cuts_no_text(tmp_path: Path) -> None:
    made = of_bytes()
    made.enable_truncation(4)
    made.enable_padding(length=99)
    made.save(str(tmp_path / "tokenizer.json"))
    assert len(tokenizer.LocalTokenizer("m", tmp_path)._encode("ten letters", special=False)) == 12
