r"""The answer in a text, exactly: 1,234.50 dollars, \frac{1}{2}, 50 %, −3 and ½ each have one form, whatever their length."""

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

MAX_DIGITS = 1000  # of a number that is worked out; a longer one is compared as it is written
MAX_EXPONENT = 1000
# What stands where no answer was found; compared without case, brackets and full stops.
NO_ANSWER = {
    "", "nan", "none", "null", "na", "n/a", "nil", "invalid", "unknown", "no answer", "not found", "error", "undefined",
    "cannot be determined", "unanswerable", "?", "-", "i don't know", "i do not know", "idk", "not known", "unclear", "tbd",
    "no answer found", "not enough information", "insufficient information", "cannot be answered",
}  # fmt: skip
CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
UNITS = {"usd": "dollar", "eur": "euro", "gbp": "pound", "buck": "dollar", "pct": "percent"}
FILLERS = {
    "a",
    "an",
    "the",
    "of",
    "about",
    "approximately",
    "roughly",
    "exactly",
    "only",
    "total",
    "is",
    "are",
    "and",
    "in",
}
SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "k": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
SCALE = rf"\s?(?i:{'|'.join(SCALES)})\b"
ALGEBRA = re.compile(
    r"[√π∞^]|\b(?:sqrt|pi)\b|\\[a-zA-Z]|\d[a-fn-z]\b|\b0x", re.IGNORECASE
)  # beside a number, it is not alone
SEPARATED = r"\d{1,3}(?:[,'_\u2009\u202f\u00a0]\d{3})+(?!\d)|\d{1,2}(?:,\d{2}){1,500},\d{3}(?!\d)"
EUROPEAN = r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?!\d)"
PLAIN = rf"(?:{EUROPEAN}|(?:{SEPARATED}|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
NUMBER = re.compile(rf"(?<![\w.])(?:(?<![)\]\d] )-\s?)?(?:\d+ \d+/\d+|{PLAIN}(?:/{PLAIN})?)(?:{SCALE})?")
LONG_SPACE = re.compile(r"(\s\s)\s+")  # which the patterns below would try at each of its places
LATEX_SPACE = re.compile(r"\\[,;:! ]|\\(?:quad|qquad|left|right|displaystyle)(?![a-zA-Z])|~")
LATEX_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,!;: ]|\{,\})(?=\d{3}(?!\d))")
LATEX_TEXT = re.compile(r"\\(?:boxed|fbox|text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
POWER_OF_TEN = re.compile(r"\s*(?:\*|×|x|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?\s*(-?\d+)\s*\}?")


@dataclass(frozen=True, slots=True)
class Answer:
    """A number, or a text where there is no single number, in one form; both empty where there is no answer."""

    number: str = ""
    text: str = ""
    units: frozenset[str] = frozenset()


def answer_in(text: str) -> Answer:
    """Return the answer that a text is: of "x = 5 apples", 5 and its unit."""
    plain = _plain(text)
    if plain.casefold().strip(" []().") in NO_ANSWER:
        return Answer()
    found = NUMBER.findall(plain.rpartition("=")[2]) or NUMBER.findall(plain)
    if len(found) != 1 or ALGEBRA.search(plain):
        return Answer(text=" ".join(plain.casefold().strip(" .").split()))
    return Answer(number=exact(found[0]), units=_units(plain.replace(found[0], " ")))


def last_number(text: str) -> Answer:
    """Return the last number of a text."""
    found = NUMBER.findall(_plain(text))
    return Answer(number=exact(found[-1])) if found else Answer()


def exact(number: str) -> str:
    """Return the one form of a number: a fraction in lowest terms; one of more than MAX_DIGITS digits as it is written."""
    if len(number) > MAX_DIGITS:
        return number
    scale = re.search(SCALE, number)
    whole, _, rest = (number[: scale.start()] if scale else number).replace("- ", "-").partition(" ")
    try:
        value = _ratio(rest or whole)
        if rest:
            value = Fraction(whole) + (-value if whole.startswith("-") else value)
    except (ValueError, ZeroDivisionError):
        return number
    return _written(value * SCALES[scale[0].strip().casefold()] if scale else value)


def _written(value: Fraction) -> str:
    """Return a fraction as a decimal number if it has one that ends, as 0.5; else as 1/3."""
    places = next((n for n in range(MAX_EXPONENT) if 10**n % value.denominator == 0), None) if _ends(value) else None
    if not places:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _ends(value: Fraction) -> bool:
    left = value.denominator
    for prime in (2, 5):
        while left % prime == 0:
            left //= prime
    return left == 1


def _ratio(text: str) -> Fraction:
    above, _, below = text.partition("/")
    return _decimal(above) / (_decimal(below) if below else 1)


def _decimal(text: str) -> Fraction:
    """Return a decimal number as a fraction; raises ValueError where its exponent is too large to be worked out."""
    if re.fullmatch(rf"-?(?:{EUROPEAN})", text):
        text = text.replace(".", "").replace(",", ".")
    value = Decimal(re.sub(r"[,'_\s]", "", text))
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > MAX_EXPONENT:
        raise ValueError("its exponent is too large")
    return Fraction(value)


def _units(text: str) -> frozenset[str]:
    """Return the words beside a number, in the singular, and what currency and percent signs stand for."""
    words = {word.removesuffix("s") for word in re.findall(r"[^\W\d_]+", text.rpartition("=")[2].casefold())}
    signs = {name for sign, name in CURRENCIES.items() if sign in text} | ({"percent"} if "%" in text else set())
    return frozenset(UNITS.get(word, word) for word in words - FILLERS if len(word) > 1 or word == "€") | signs


def _plain(text: str) -> str:
    r"""Return a text with signs and digits in ASCII, without LaTeX's markup: \frac{1}{2} is 1/2."""
    text = LONG_SPACE.sub(r"\1", "".join(map(_ascii, text)).strip())
    text = LATEX_THOUSANDS.sub("", text).replace("\\%", "%")
    text = LATEX_TEXT.sub(r" \1", LATEX_SPACE.sub(" ", text))
    text = _without_math_signs(text)
    text = LATEX_FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]} ", text)
    text = POWER_OF_TEN.sub(r"e\1", re.sub(r"\^\s*\{?\\circ\}?|°", " degree", text))
    text = re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", text)
    text = re.sub(r"-\s+(?=\d+/)", "-", text)
    return re.sub(r"(-?)\s*([$€£¥₹])\s*(?=[-\d.])", r"\2 \1", text.replace("{", "").replace("}", "")).strip()


def _without_math_signs(text: str) -> str:
    r"""Drop the signs that begin and end mathematics: $5$, \(5\); a dollar is \$, or a sign that has no second."""
    dollar = "\0"
    text = re.sub(r"\\[()\[\]]", " ", text.replace("\\$", dollar))
    text = re.sub(r"\$\$?([^$]*)\$\$?", r" \1 ", text) if text.count("$") % 2 == 0 and _is_math(text) else text
    return text.replace(dollar, "$").strip()


def _is_math(text: str) -> bool:
    """Return whether dollar signs stand in pairs around something, not before two amounts."""
    return re.search(r"\$[^$]*[^\s$]\$(?!\s*\d)", text) is not None


def _ascii(character: str) -> str:
    if character.isascii():
        return character
    if character in "−–—﹣－‒":
        return "-"
    if character in "⁄∕":
        return "/"
    if unicodedata.decimal(character, None) is not None:
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith("<fraction>"):  # ½
        return f" {unicodedata.normalize('NFKC', character).replace('⁄', '/')}"
    return {"％": "%", "＄": "$", "，": ",", "．": "."}.get(character, character)
