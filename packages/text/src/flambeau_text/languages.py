"""Find language codes in the names of files and columns."""

from __future__ import annotations

from collections.abc import Mapping

_TWO_LETTERS = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv
cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr
ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw
ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv
ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr
ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi
yo za zh zu
"""
CODES = frozenset(_TWO_LETTERS.split())
"""The two-letter codes of ISO 639-1."""

_OTHER_NAMES: Mapping[str, str] = {
    name: code
    for code, names in {
        "ar": "ara arabic", "bg": "bul bulgarian", "bn": "ben bengali", "cs": "ces cze czech",
        "bo": "bod tib tibetan",
        "da": "dan danish", "de": "deu ger german deutsch", "el": "ell gre greek",
        "en": "eng english", "es": "spa spanish español", "et": "est estonian",
        "fa": "fas per persian", "fi": "fin finnish", "fr": "fra fre french français",
        "he": "heb hebrew", "hi": "hin hindi", "hr": "hrv croatian", "hu": "hun hungarian",
        "id": "ind indonesian", "it": "ita italian italiano", "ja": "jpn japanese",
        "km": "khm khmer", "ko": "kor korean", "la": "lat latin", "lo": "lao",
        "lt": "lit lithuanian",
        "lv": "lav latvian", "my": "mya bur burmese", "nl": "nld dut dutch",
        "no": "nor norwegian", "pl": "pol polish", "pt": "por portuguese", "ro": "ron rum romanian",
        "ru": "rus russian", "sk": "slk slo slovak", "sl": "slv slovene slovenian",
        "sr": "srp serbian", "sv": "swe swedish", "sw": "swa swahili", "th": "tha thai",
        "tr": "tur turkish", "uk": "ukr ukrainian", "ur": "urd urdu", "vi": "vie vietnamese",
        "zh": "zho chi chinese",
    }.items()
    for name in names.split()
}  # fmt: skip
"""Three-letter codes and names of the languages of common corpora."""


def language_code(name: str) -> str | None:
    """Return the code of the language that a name denotes, or None if it denotes no language.

    Example:
        >>> [language_code(name) for name in ("DE", "eng", "German", "pt-BR", "src", "dog")]
        ['de', 'en', 'de', 'pt', None, None]
    """
    plain = name.strip().lower()
    code, _, region = plain.replace("_", "-").partition("-")
    if plain == code or (len(code) == 2 and region.isalpha()):
        return code if code in CODES else _OTHER_NAMES.get(code)
    return None
