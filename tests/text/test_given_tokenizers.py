"""Tokenizers of a user, SentencePiece models, and BPE dropout."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flambeau import Learner, Predictor, TrainingOptions
from flambeau.data.loader import LoaderOptions
from flambeau.errors import (
    ArgumentError,
    ArtefactError,
    FlambeauWarning,
    InputError,
    MissingDependencyError,
    PlanError,
)
from flambeau_text import TranslationData, TranslationOptions, translate
from flambeau_text.tokenization import (
    CharacterTokenizer,
    CustomTokenizer,
    SentencePieceTokenizer,
    SubwordTokenizer,
    custom,
    register_tokenizer,
    tokenizer_from_json,
)
from flambeau_text.tokenization.bpe_dropout import BpeDropout
from flambeau_text.translation.demo import date_pairs

CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 16, "num_threads": 1,
    "model_config": {"embedding_dim": 16, "hidden_size": 16, "dropout": 0.0}, "lr": 0.01,
}  # fmt: skip
PAIRS = date_pairs(80, 0)


class Bytes:
    """One id per byte; ``shift`` moves the ids, so that a lost argument shows."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __len__(self) -> int:
        return 256 + self.shift

    def encode(self, text: str) -> list[int]:
        return [byte + self.shift for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - self.shift for i in ids).decode(errors="replace")

    def arguments(self) -> dict[str, int]:
        return {"shift": self.shift}


class Forgetful(Bytes):
    def arguments(self) -> dict[str, int]:
        return {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(custom._REGISTERED)
    custom._REGISTERED.clear()  # docs/translation.md registers the same name
    register_tokenizer("bytes", Bytes)
    yield
    custom._REGISTERED.clear()
    custom._REGISTERED.update(before)


def learner(given: Any, **choices: Any) -> Learner:
    torch.manual_seed(0)
    options = TranslationOptions("en", "de", tokenizer=given)
    data = TranslationData.from_pairs(PAIRS, options=options)
    training = TrainingOptions(doctor=False)
    return Learner(data, choices={**CHOICES, **choices}, training=training, quiet=True)


# ---------------------------------------------------------------- user-defined


def test_a_registered_tokenizer_trains_and_is_exported(tmp_path: Path) -> None:
    run = learner(Bytes(shift=3))
    run.fit(1)
    assert run.plan["tokenizer"].value == "bytes"
    assert run.plan["vocab_size"].value == 263
    preprocessor: Any = run.built.preprocessor
    assert preprocessor.source is preprocessor.target
    text = "Ünï, no. 3"
    assert preprocessor.source.encode(text) == [byte + 7 for byte in text.encode()]
    assert preprocessor.source.decode(preprocessor.source.encode(text)) == text
    loaded = Predictor.load(run.export(tmp_path / "model"))
    texts = run.data.raw("valid")[:3]
    assert loaded.predict(texts) == run.predict(texts)
    assert [each.text for each in translate(loaded, texts)] == [e.text for e in run.predict(texts)]
    # Further pairs are read with the tokenizer of the export.
    more = TranslationData.from_pairs(PAIRS, options=TranslationOptions(like=tmp_path / "model"))
    again = Learner(more, choices={**CHOICES}, quiet=True)
    assert again.built.preprocessor.source.encode("a") == [ord("a") + 7]  # type: ignore[attr-defined]


def test_an_export_needs_the_registration(tmp_path: Path) -> None:
    folder = learner(Bytes()).export(tmp_path / "model")
    custom._REGISTERED.clear()
    with pytest.raises(ArtefactError, match=r"tokenizer 'bytes' is not registered.*before loading"):
        Predictor.load(folder)


def test_a_pair_has_one_tokenizer_for_each_side() -> None:
    target = CharacterTokenizer.fit([german for _, german in PAIRS])
    run = learner((Bytes(), target))
    preprocessor: Any = run.built.preprocessor
    assert isinstance(preprocessor.source, CustomTokenizer)
    assert preprocessor.target is target
    assert run.plan["shared_vocab"].value is False
    assert run.plan["tokenizer"].value == "bytes and character"
    # A name in the choices replaces them.
    assert learner(Bytes(), tokenizer="character").built.preprocessor.source.kind == "character"  # type: ignore[attr-defined]


def test_unusable_tokenizers_are_refused() -> None:
    class Unknown(Bytes):
        pass

    class Negative(Bytes):
        def encode(self, text: str) -> list[int]:
            return [-1]

    with pytest.raises(ArgumentError, match="Unknown is not registered"):
        TranslationOptions(tokenizer=Unknown())
    with pytest.raises(ArgumentError, match="lacks encode, decode"):
        TranslationOptions(tokenizer={"a": 1})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="3 entries"):
        TranslationOptions(tokenizer=(Bytes(), Bytes(), Bytes()))
    with pytest.raises(InputError, match="one of bpe, unigram, word, character, or an object"):
        TranslationOptions(tokenizer="bytes")
    with pytest.raises(ArgumentError, match="'bytes' belongs to Bytes"):
        register_tokenizer("bytes", Forgetful)
    with pytest.raises(ArgumentError, match="missing: encode, decode"):
        register_tokenizer("numbers", list)
    register_tokenizer("forgetful", Forgetful)
    with pytest.raises(ArgumentError, match="has 257 ids, but 256 when it is built again"):
        CustomTokenizer.of(Forgetful(shift=1))
    register_tokenizer("negative", Negative)
    with pytest.raises(InputError, match="returned the id -1 for 'a'"):
        CustomTokenizer.of(Negative()).encode("a")
    with pytest.raises(PlanError, match="pass any other as TranslationOptions"):
        learner(None, tokenizer="bytes").plan  # noqa: B018


def test_case_and_form_apply_to_user_defined_tokenizers() -> None:
    tokenizer = CustomTokenizer.of(Bytes(), lowercase=True)
    assert tokenizer.encode("CAFE\u0301") == [4 + byte for byte in "café".encode()]
    assert tokenizer.normalize("CAFE\u0301") == "café"
    cased = CharacterTokenizer.fit(["Ab"])
    data = TranslationData.from_pairs(
        PAIRS, options=TranslationOptions(tokenizer=cased, lowercase=True)
    )
    with pytest.raises(InputError, match="keeps the case of texts"):
        Learner(data, choices=CHOICES, quiet=True).built  # noqa: B018


# ---------------------------------------------------------------- SentencePiece


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for pair in PAIRS for text in pair]),
        model_writer=content, vocab_size=120, minloglevel=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "dates.model"
    path.write_bytes(content.getvalue())
    return path


def test_a_sentencepiece_model_equals_its_library(model_file: Path, tmp_path: Path) -> None:
    import sentencepiece

    plain = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    tokenizer = SentencePieceTokenizer.from_file(model_file)
    for text in [PAIRS[0][0], PAIRS[1][1], "a ☃ <s> </s>"]:
        ids = [0 if i == plain.unk_id() else i + 4 for i in plain.encode(text)]
        assert tokenizer.encode(text) == ids
        assert tokenizer.tokenize(text) == plain.encode(text, out_type=str)
        assert tokenizer.decode(ids) == plain.decode(plain.encode(text))
    for text in PAIRS[0]:
        assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text) == text
        assert tokenizer.join(tokenizer.ids_to_tokens(tokenizer.encode(text))) == text
    again = tokenizer_from_json(tokenizer.as_json())
    assert again.encode(PAIRS[0][0]) == tokenizer.encode(PAIRS[0][0])
    run = learner(tokenizer)
    loaded = Predictor.load(run.export(tmp_path / "model"))
    assert loaded.predict(PAIRS[0][0]) == run.predict(PAIRS[0][0])


def test_sentencepiece_is_optional(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingDependencyError, match=r"flambeau-text\[sentencepiece\]"):
        SentencePieceTokenizer.from_file(model_file)


def test_a_file_that_is_no_model_is_named(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*gone\.model"):
        SentencePieceTokenizer.from_file(tmp_path / "gone.model")
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(InputError, match="is not a SentencePiece model"):
        SentencePieceTokenizer.from_file(tmp_path / "text.model")


# ---------------------------------------------------------------- BPE dropout

TEXTS = ["a dog runs over the grass", "the dogs ran; two of them", "é over-run ☃☃ grass!"]


@pytest.fixture(scope="module")
def bpe() -> SubwordTokenizer:
    return SubwordTokenizer.train(TEXTS[:2] * 5, vocab_size=90)


def test_without_dropout_the_segmentation_is_that_of_the_library(bpe: SubwordTokenizer) -> None:
    plain = BpeDropout(bpe, 0.0)
    assert [plain.encode(text, random.Random(0)) for text in TEXTS] == bpe.encode_batch(TEXTS)


def test_dropout_follows_the_distribution_of_the_library(bpe: SubwordTokenizer) -> None:
    import tokenizers

    reference = tokenizers.Tokenizer.from_str(bpe._tokenizer.to_str())
    reference.model.dropout = 0.3
    ours, draws, n = BpeDropout(bpe, 0.3), random.Random(0), 1_000
    lengths = torch.tensor([
        [len(ours.encode(TEXTS[0], draws)), len(reference.encode(TEXTS[0]).ids)] for _ in range(n)
    ]).double()  # fmt: skip
    means, deviations = lengths.mean(0), lengths.std(0)
    # Five standard errors: the library's draws cannot be seeded.
    assert abs(means[0] - means[1]) < 5 * deviations.square().sum().sqrt() / n**0.5
    assert means[0] > len(bpe.encode(TEXTS[0])) + 1
    assert all(bpe.decode(ours.encode(TEXTS[0], draws)) == TEXTS[0] for _ in range(20))


def test_only_train_batches_have_dropout_and_epochs_differ() -> None:
    run = learner("bpe", bpe_dropout=0.3, vocab_size=150)
    plain = learner("bpe", vocab_size=150)
    preprocessor = run.built.preprocessor
    train = run.data.dataset("train", preprocessor, run.plan.values)
    loader = train.loader(LoaderOptions(16, shuffle=True, seed=4))

    def tokens(epoch: int, start: int = 0) -> list[list[list[int]]]:
        return [batch.inputs["source"].tolist() for batch in loader.batches(epoch, start)]

    assert tokens(0) == tokens(0)
    assert tokens(0, 2) == tokens(0)[2:]
    batches = [list(loader.batches(epoch)) for epoch in (0, 1)]
    found = {}
    for epoch, each in enumerate(batches):
        for batch in each:
            assert batch.weight == float((batch.targets["target"][:, 1:] != 1).sum())
            for row, index in enumerate(batch.indices.tolist()):
                ids = [i for i in batch.inputs["source"][row].tolist() if i != 1]
                found[epoch, index] = ids
                text = preprocessor.source.decode(ids)  # type: ignore[attr-defined]
                assert text == run.data.samples["source"][index]
    rows = run.data.split.train.tolist()
    assert sum(found[0, row] != found[1, row] for row in rows) > len(rows) / 2
    for part in ("valid", "train"):
        options = LoaderOptions(16)
        both = [
            [b.inputs["source"] for b in
             each.data.dataset(part, preprocessor, each.plan.values).loader(options).batches(0)]
            for each in (run, plain)
        ]  # fmt: skip
        assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    rows = run.fit(1).rows
    assert rows[0]["train_loss"] > 0


@pytest.mark.parametrize(
    ("tokenizer", "value", "message"),
    [("word", 0.1, 'only "bpe" has merges'), ("bpe", 1.0, "below 1"), ("bpe", True, "below 1")],
)
def test_invalid_dropout_is_refused(tokenizer: str, value: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        learner(tokenizer, bpe_dropout=value).plan  # noqa: B018


def broken(**methods: Any) -> Any:
    kind = type("Broken", (Bytes,), methods)
    register_tokenizer("broken", kind)
    return kind()


def ids(text: str) -> list[int]:
    return list(text.encode())


def encodes(function: Any) -> Any:
    return broken(encode=lambda self, text: function(text))


BROKEN: list[tuple[str, Any, str]] = [
    ("floats", lambda: encodes(lambda text: [1.5]), "must return a sequence of whole numbers"),
    ("texts", lambda: encodes(lambda text: ["1"]), "must return a sequence of whole numbers"),
    ("nothing", lambda: encodes(lambda text: None), r"returned None .*sequence of whole numbers"),
    (
        "nested",
        lambda: encodes(lambda text: [ids(text)]),
        "must return a sequence of whole numbers",
    ),
    ("too large", lambda: encodes(lambda text: [256]), "returned the id 256 .*must be 0 to 255"),
    ("negative", lambda: encodes(lambda text: [-1]), "returned the id -1 .*must be 0 to 255"),
    ("lossy", lambda: encodes(lambda text: ids(text.replace(" ", ""))), "for 64 of 64 train texts"),
    ("empty", lambda: encodes(lambda text: []), "for 64 of 64 train texts: .* became ''"),
    (
        "special tokens",
        lambda: encodes(lambda text: [1, *ids(text), 2]),
        r"for 64 of 64 train texts: .*\(without special tokens\)",
    ),
    (
        "random",
        lambda: encodes(lambda text: [random.randrange(256) for _ in text]),
        "different ids for .* in two calls",
    ),
    ("bytes", lambda: broken(decode=lambda self, ids: bytes(ids)), "decode must return a text"),
]


@pytest.mark.parametrize(
    ("make", "message"), [each[1:] for each in BROKEN], ids=[b[0] for b in BROKEN]
)
def test_tokenizers_that_break_the_protocol_are_refused(make: Any, message: str) -> None:
    random.seed(0)
    with pytest.raises(InputError, match=message):
        _ = learner(make()).model


def test_a_tokenizer_that_changes_some_texts_is_reported() -> None:
    changes = encodes(lambda text: ids(text.replace("eleven", "11")))
    with pytest.warns(FlambeauWarning, match=r"\[tokenizer-changes-text\].* of 64 train texts"):
        _ = learner(changes).model


def test_ids_may_be_of_any_integer_type() -> None:
    expected = learner(Bytes()).task.target.encode("a ñ")
    for convert in (torch.tensor, np.array):
        made = learner(encodes(lambda text, convert=convert: convert(ids(text))))
        assert made.task.target.encode("a ñ") == expected


@pytest.mark.parametrize("name", ["bpe", "word", "custom", "", " ", 3])
def test_names_of_other_tokenizers_are_refused(name: Any) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be given to a tokenizer: .*Choose another"):
        register_tokenizer(name, Bytes)
