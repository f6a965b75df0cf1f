"""A synthetic task that needs attention: translate English sentences with a date to German.

The German sentence has the parts of the date in another order, and a number has one to three words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.random import generator
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.options import TranslationOptions

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
GERMAN_MONTHS = [
    "januar",
    "februar",
    "märz",
    "april",
    "mai",
    "juni",
    "juli",
    "august",
    "september",
    "oktober",
    "november",
    "dezember",
]
_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = [
    "zero",
    "ten",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
]
_GERMAN_ONES = [
    "null",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
_GERMAN_TENS = [
    "null",
    "zehn",
    "zwanzig",
    "dreißig",
    "vierzig",
    "fünfzig",
    "sechzig",
    "siebzig",
    "achtzig",
    "neunzig",
]
_OPENINGS = (("we met on", "wir trafen uns am"), ("she was born on", "sie wurde geboren am"),
             ("it closes on", "es schließt am"), ("they left on", "sie gingen am"))  # fmt: skip
_ENDINGS = (("", ""), ("in the morning", "am morgen"), ("at night", "in der nacht"))


def english(number: int) -> list[str]:
    """Return the English words of a number below 100: "forty", "two"."""
    if number < 20:
        return [_ONES[number]]
    tens, ones = divmod(number, 10)
    return [_TENS[tens], *([_ONES[ones]] if ones else [])]


def german(number: int) -> list[str]:
    """Return the German words of a number below 100, ones before tens: "zwei", "und", "vierzig"."""
    if number < 20:
        return [_GERMAN_ONES[number]]
    tens, ones = divmod(number, 10)
    return [*([_GERMAN_ONES[ones], "und"] if ones else []), _GERMAN_TENS[tens]]


def date_pair(opening: int, day: int, month: int, year: int, ending: int) -> tuple[str, str]:
    """Return an English sentence with a date and its German translation.

    >>> date_pair(0, 21, 3, 1842, 0)[0]
    'we met on march twenty one eighteen forty two'
    >>> date_pair(0, 21, 3, 1842, 0)[1]
    'am ein und zwanzig märz achtzehn hundert zwei und vierzig wir trafen uns'
    """
    first, second = _OPENINGS[opening], _ENDINGS[ending]
    century, rest = divmod(year, 100)
    source = [first[0], MONTHS[month - 1], *english(day), *english(century), *english(rest)]
    # In German the date comes first, and its parts have another order.
    verb = first[1].removesuffix(" am")
    target = ["am", *german(day), GERMAN_MONTHS[month - 1]]
    target += [*german(century), "hundert", *german(rest), verb]
    return " ".join([*source, second[0]]).strip(), " ".join([*target, second[1]]).strip()


def date_pairs(n_samples: int, seed: int) -> list[tuple[str, str]]:
    """Return pairs of sentences with random dates; the same seed gives the same pairs."""
    draws = generator(seed, "dates demo")

    def drawn(high: int) -> Sequence[int]:
        return torch.randint(high, (n_samples,), generator=draws).tolist()

    columns = zip(drawn(4), drawn(28), drawn(12), drawn(900), drawn(3), strict=True)
    return [date_pair(o, day + 1, month + 1, 1100 + year, e) for o, day, month, year, e in columns]


def dates_data(n_samples: int, seed: int) -> TranslationData:
    """Return the data of the demo: sentences with dates, English to German."""
    pairs = date_pairs(n_samples, seed)
    samples = Samples(
        {
            "source": [source for source, _ in pairs],
            "target": [target for _, target in pairs],
            "location": [f"pair {number}" for number in range(n_samples)],
        }
    )
    split = Split.random(n_samples, valid=0.1, test=0.1, seed=seed)
    options = TranslationOptions("en", "de", tokenizer="word")
    return TranslationData(samples, split, options)
