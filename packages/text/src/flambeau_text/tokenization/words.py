"""``WordTokenizer``: splits texts into words and punctuation by spaCy's rules for a language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from flambeau.errors import InputError, explains_arguments
from flambeau_text.tokenization.vocab_tokenizer import VocabTokenizer, vocabulary_tokens
from flambeau_text.tokenization.word_rules import (
    JOINER,
    RULE_TOKENS,
    SQUARE,
    apply_rules,
    is_run,
    pieces_of,
    undo_rules,
    without_html,
)
from flambeau_text.vocab import SPECIALS


@explains_arguments()
class WordTokenizer(VocabTokenizer):
    r"""A tokenizer that splits texts like spaCy's blank pipeline for a language.

    If no space separates a word and a punctuation token, the punctuation token gets the mark ￭ on
    that side: "(a dog)!" has the tokens "(￭", "a", "dog", "￭)" and "￭!". With these marks decoding
    restores the spaces of any text, except that several spaces become one. A word gets a mark only
    if it follows another word without a space.

    With ``rules`` words are in lower case, so that a word has one token wherever it stands. HTML is
    replaced. Three or more equal characters become "xxrep", their number and the character; three
    or more equal words "xxwrep", their number and the word; ``/``, ``#`` and ``\`` are tokens;
    "xxup" precedes a word of two or more capitals, "xxmaj" one that begins with a capital. Decoding
    restores the text except HTML and the case of words such as "McDonald". In a text the names of
    these tokens are words, whose first letter becomes a square.

    Nothing is downloaded. Splitting 29,000 captions (380,000 tokens) takes 0.23 CPU-seconds in one
    process; several processes are slower, because whole documents are sent between them.

    Args:
        tokens: The vocabulary, special tokens first.
        language: A language code of spaCy ("en", "de", …, "xx" for any language); None splits at
            white space only.
        lowercase: Whether texts are lower-cased first.
        normalization: The Unicode form of texts.
        rules: Whether case and repetition are tokens of their own.

    Raises:
        InputError: spaCy has no rules for the language; or the vocabulary lacks the tokens of the
            rules.

    Source:
        The rules are those of ULMFiT (arXiv 1801.06146) and fastai, with two differences: the marks
        keep spaces, and a single capital letter gets "xxmaj", too.

    Example:
        >>> words = WordTokenizer.fit(["NO way!!!"], language="en", rules=True)
        >>> words.tokenize("NO way!!!"), words.decode(words.encode("NO way!!!"))
        (['xxup', 'no', 'way', 'xxrep', '3', '￭!'], 'NO way!!!')
    """

    kind: ClassVar[str] = "word"

    def __init__(
        self,
        tokens: Sequence[str],
        language: str | None = None,
        lowercase: bool = False,
        normalization: str = "nfc",
        rules: bool = False,
    ) -> None:
        super().__init__(tokens, lowercase, normalization)
        first = len(SPECIALS)
        if rules and tuple(tokens[first : first + len(RULE_TOKENS)]) != RULE_TOKENS:
            raise InputError(
                f"The vocabulary has {list(tokens[first : first + 5])} after the special tokens. "
                f"With rules these must be {', '.join(RULE_TOKENS)}, in this order."
            )
        self.language = language
        self.rules = rules
        if language is not None:
            _spacy_tokenizer(language)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        language: str | None = None,
        lowercase: bool = False,
        normalization: str = "nfc",
        rules: bool = False,
        min_freq: int = 1,
        max_tokens: int | None = None,
    ) -> WordTokenizer:
        """Build the vocabulary from the most frequent words of the texts.

        Args:
            texts: Train texts.
            language: As for the class.
            lowercase: Whether texts are lower-cased first.
            normalization: As for the class.
            rules: As for the class.
            min_freq: Minimum count of a word; rarer words are unknown.
            max_tokens: Maximum size of the vocabulary, special tokens included.
        """
        specials = (*SPECIALS, *RULE_TOKENS) if rules else SPECIALS
        empty = cls(specials, language, lowercase, normalization, rules)
        tokens = vocabulary_tokens(empty.tokenize_in_pieces(texts), min_freq, max_tokens, specials)
        return cls(tokens, language, lowercase, normalization, rules)

    def tokenize_batch(self, texts: Sequence[str]) -> list[list[str]]:
        return self.tokenize_normalized([self._plain(text) for text in texts])

    def tokenize_normalized(self, texts: Sequence[str]) -> list[list[str]]:
        if self.rules:
            return [apply_rules(_marked(tokens)) for tokens in self._split_pieces(texts)]
        if self.language is None:
            return [text.split() for text in texts]
        split = _spacy_tokenizer(self.language)
        return [
            _marked([(token.text, bool(token.whitespace_)) for token in doc])
            for doc in split.pipe(texts)
        ]

    def _split_pieces(self, texts: Sequence[str]) -> Iterator[list[tuple[str, bool]]]:
        """Yield the tokens of each text, and whether a space follows each of them."""
        pieces = [pieces_of(text) for text in texts]
        if self.language is None:
            yield from pieces
            return
        split = _spacy_tokenizer(self.language)
        # spaCy gets a space after each piece and never joins what has a space between.
        spaced = (" ".join(piece for piece, _ in each) for each in pieces)
        for each, doc in zip(pieces, split.pipe(spaced), strict=True):
            tokens = iter(doc)
            yield [token for piece, space in each for token in _tokens_of(piece, space, tokens)]

    def normalize(self, text: str) -> str:
        # Which words are in mixed case is known only after they are split.
        return self.join(self.tokenize(text)) if self.rules else self._plain(text)

    def _plain(self, text: str) -> str:
        """Return the text that is split: with single spaces, and without what tokens stand for."""
        found = super().normalize(without_html(text) if self.rules else text)
        found = " ".join(found.split())
        if self.language is None and not self.rules:
            return found
        return found.replace(JOINER, SQUARE)  # the mark itself becomes another square

    def join(self, tokens: Sequence[str]) -> str:
        """Join words with spaces, except at the marks."""
        text = " ".join(undo_rules(tokens) if self.rules else tokens)
        if self.language is None and not self.rules:
            return text
        for joined in (f"{JOINER} {JOINER}", f"{JOINER} ", f" {JOINER}"):
            text = text.replace(joined, "")
        return text.replace(JOINER, "")

    def arguments(self) -> Mapping[str, Any]:
        return {**super().arguments(), "language": self.language, "rules": self.rules}


def _marked(tokens: Sequence[tuple[str, bool]]) -> list[str]:
    """Return the tokens with marks, given the text of each and whether a space follows it."""
    texts = [text for text, _ in tokens]
    for at, (text, space) in enumerate(tokens[:-1]):
        if space:
            continue
        following = tokens[at + 1][0]
        # At punctuation, so that words keep one form; of two words, at the second.
        if following[0].isalnum() and not text[-1].isalnum():
            texts[at] += JOINER
        else:
            texts[at + 1] = JOINER + following
    return texts


def _tokens_of(piece: str, space: bool, tokens: Iterator[Any]) -> list[tuple[str, bool]]:
    """Take the tokens of a piece from those of a text; a run of equal characters remains one."""
    texts: list[str] = []
    for token in tokens:
        texts.append(token.text)
        if token.whitespace_:
            break
    texts = [piece] if is_run(piece) else texts
    return [*((text, False) for text in texts[:-1]), (texts[-1], space)]


@cache
def _spacy_tokenizer(language: str) -> Any:
    import spacy

    try:
        return spacy.blank(language).tokenizer
    except (ImportError, OSError) as error:
        raise InputError(
            f"spaCy cannot split the language {language!r} into words: {str(error)[:80]!r}. "
            "Give 'xx' for rules that work for many languages: "
            "TranslationOptions(source_language='xx') or --source-language xx (the same for the "
            "target); or use subwords, which need no rules: TranslationOptions(tokenizer='bpe') or "
            "--tokenizer bpe."
        ) from error
