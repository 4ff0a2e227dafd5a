"""What is written on the crops that people rectify: words, names, numbers, codes, prices, one to three words."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PUNCTUATION = ".,!?:;'-&%"
_LONGEST = 24
_SHORT = 4
_LEAST = (1, 2, 3), (0.2, 0.4, 0.4)
"""Characters of the least texts, and how often each number of them."""

_COMMON = """
a about above after again air all also am an and any are art as at auto away back bank bar beach been beer before best
big black blue book books both bread bus but buy by cafe call came can car care caution center central church city
clean close closed club coffee cold come cream danger day days did dinner do dog door down drink drive east eat end
enter entrance even every exit express family fast fire first fish floor food for free fresh from front full garden
gas get gift go gold good great green grill had hall has have he health help her here high him his home hot hotel hour
hours house how ice if in info inn international into is it its just keep king kitchen know lane large last left life
light like line little live long look love lunch made main make man many market may me meat men menu metro mind more
most mr much music must my national near never new news next night no north not now number of off office oil old on
one only open or order other our out over own park parking part pay people phone pizza place please police post power
press price private pub public pull push queen quick red rent rest restaurant right river road room rooms royal sale
save school sea second self sell service shoes shop should sign slow small smoking so some south special speed sport
station stay still stop store street summer sun super take taxi tea tel than thank that the their them then there
these they think this three ticket time to today toilet too top town toys trade traffic train travel two under
university up us use very view wait walk was watch water way we welcome well were west what when where which while
white who wide will wine with women work world year yellow yes you your
"""
"""Frequent English words, and those of signs: a dictionary has each of them once."""


@dataclass(frozen=True)
class Vocabulary:
    """Words, and those of them that are met most: frequent, or short."""

    words: tuple[str, ...]
    common: tuple[str, ...]
    short: tuple[str, ...]


def vocabulary(words: Sequence[str]) -> Vocabulary:
    """The words sorted out; where none is frequent, or short, any of them stands in."""
    frequent = frozenset(_COMMON.split())
    common = tuple(word for word in words if word in frequent)
    short = tuple(word for word in words if 1 < len(word) <= _SHORT)
    return Vocabulary(tuple(words), common or tuple(words), short or tuple(words))


def random_text(rng: np.random.Generator, known: Vocabulary, short: float = 0.0) -> str:
    """One to three words, numbers or codes in any case, of 24 characters at most; the share `short` of three at most.

    These tell least of how they lie, and are learned last: as often as they are met is not often enough.
    """
    if short and rng.random() < short:
        return _least_text(rng, known)
    count = int(rng.choice((1, 2, 3), p=(0.86, 0.11, 0.03)))
    text = " ".join(_token(rng, known) for _ in range(count))
    return text[:_LONGEST].strip() or "a"


def _least_text(rng: np.random.Generator, known: Vocabulary) -> str:
    length = int(rng.choice(_LEAST[0], p=_LEAST[1]))
    words = [word for word in known.short if len(word) == length]
    if words and rng.random() < 0.5:
        return _cased(rng, words[int(rng.integers(len(words)))])
    alphabets = (string.ascii_uppercase, string.ascii_lowercase, string.digits)
    return _characters(rng, alphabets[int(rng.choice(3, p=(0.5, 0.2, 0.3)))], length, length)


def _token(rng: np.random.Generator, known: Vocabulary) -> str:
    kind = rng.random()
    if kind < 0.70:
        words = known.common if kind < 0.22 else known.short if kind < 0.32 else known.words
        token = _cased(rng, words[int(rng.integers(len(words)))])
    elif kind < 0.85:
        token = _number(rng)
    elif kind < 0.93:
        token = _characters(rng, string.ascii_uppercase + (string.digits if kind < 0.89 else ""), 2, 9)
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
    if kind < 0.5:
        return str(int(10 ** rng.uniform(0.0, 5)))
    if kind < 0.65:
        return _characters(rng, string.digits, 2, 11)
    if kind < 0.8:
        return f"{'$£€'[int(rng.integers(3))] if rng.random() < 0.5 else ''}{rng.uniform(0, 100):.2f}"
    return f"{int(rng.integers(1, 24))}:{int(rng.integers(0, 60)):02d}" if kind < 0.9 else f"{int(rng.integers(100))}%"


def _characters(rng: np.random.Generator, alphabet: str, least: int, most: int) -> str:
    length = int(rng.integers(least, most + 1))
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), length))
