"""What a message may quote of an answer: neither our key, nor what the server repeats of our prompts."""

import json

ECHO = 16  # characters that an answer and a prompt share, spaces and quotes left out, before this is a quotation


def quotable(answer: bytes, *, key: str, body: bytes | None, limit: int) -> str:
    """Return at most `limit` characters of an answer, on one line: without the key, up to where it repeats a prompt of `body`.

    Servers quote the requests that they refuse: vLLM all of an input that is not valid.
    """
    said = without_key(answer.decode(errors="replace"), key)[:limit]
    said = "".join(sign if sign.isprintable() else " " for sign in said)
    end = _echo(said, _prompts(body))
    return said if end is None else f"{said[:end]}... (the answer goes on with a prompt, which is not quoted)"


def without_key(said: str, key: str) -> str:
    """Return what a server says, in case that it quotes our key."""
    return said.replace(key, "(the key)") if key else said


def _prompts(body: bytes | None) -> str:
    """Return the prompts of a request as an answer may repeat them: as texts, and as JSON writes them."""
    sent = json.loads(body) if body else None
    prompts = sent.get("prompt") if isinstance(sent, dict) else None
    return f"{prompts} {json.dumps(prompts)} {json.dumps(prompts, ensure_ascii=False)}" if prompts else ""


def _echo(said: str, prompts: str) -> int | None:
    """Return where `said` begins to repeat prompts, or None."""
    sent = "".join(filter(_counts, prompts))
    places = [place for place, sign in enumerate(said) if _counts(sign)]
    plain = "".join(said[place] for place in places)
    starts = range(len(plain) - ECHO + 1)
    return next((places[start] for start in starts if plain[start : start + ECHO] in sent), None)


def _counts(sign: str) -> bool:
    return not sign.isspace() and sign not in "\\\"'"
