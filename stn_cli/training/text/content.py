"""What is written on the crops that people rectify: words, names, numbers, codes, prices, one to three words."""

import string
from collections.abc import Sequence

import numpy as np

_PUNCTUATION = ".,!?:;'-&%"
_LONGEST = 24


def random_text(rng: np.random.Generator, words: Sequence[str]) -> str:
    """One to three words, numbers or codes in any case, of 24 characters at most."""
    count = int(rng.choice((1, 2, 3), p=(0.86, 0.11, 0.03)))
    text = " ".join(_token(rng, words) for _ in range(count))
    return text[:_LONGEST].strip() or "a"


def _token(rng: np.random.Generator, words: Sequence[str]) -> str:
    kind = rng.random()
    if kind < 0.64:
        token = _cased(rng, words[int(rng.integers(len(words)))])
    elif kind < 0.75:  # short words are few in a dictionary, and many on signs
        token = _cased(rng, words[int(rng.integers(len(words)))][: int(rng.integers(2, 5))])
    elif kind < 0.89:
        token = _number(rng)
    elif kind < 0.96:
        token = _characters(rng, string.ascii_uppercase + string.digits, 2, 9)
    else:
        token = _characters(rng, string.ascii_letters, 1, 3)
    if rng.random() < 0.06:
        mark = _PUNCTUATION[int(rng.integers(len(_PUNCTUATION)))]
        token = token + mark if rng.random() < 0.8 else mark + token
    return token


def _cased(rng: np.random.Generator, word: str) -> str:
    return (word.upper, word.capitalize, word.lower)[int(rng.choice(3, p=(0.42, 0.28, 0.30)))]()


def _number(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.4:
        return str(int(10 ** rng.uniform(0.3, 5)))
    if kind < 0.6:
        return _characters(rng, string.digits, 2, 11)
    if kind < 0.75:
        return f"{'$£€'[int(rng.integers(3))] if rng.random() < 0.5 else ''}{rng.uniform(0, 100):.2f}"
    return f"{int(rng.integers(1, 24))}:{int(rng.integers(0, 60)):02d}" if kind < 0.85 else f"{int(rng.integers(100))}%"


def _characters(rng: np.random.Generator, alphabet: str, least: int, most: int) -> str:
    length = int(rng.integers(least, most + 1))
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), length))
