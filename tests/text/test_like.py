"""``TranslationOptions(like="export")``: new pairs with an export's tokenizers and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, Plan, TensorData
from flambeau.errors import ArtefactError, InputError, PlanError
from flambeau_text import TranslationData, TranslationOptions

CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 16, "num_threads": 1,
    "epochs": 1,
}  # fmt: skip
SMALL = {"embedding_dim": 8, "hidden_size": 8, "dropout": 0.0}
LARGER = {"embedding_dim": 12, "hidden_size": 16, "dropout": 0.0}
NUMBERS = ["one", "Two", "three", "Four", "five", "Six", "seven", "Eight"]
ZAHLEN = ["eins", "Zwei", "drei", "Vier", "fünf", "Sechs", "sieben", "Acht"]
PAIRS = [
    (f"{NUMBERS[i]} and {NUMBERS[j]}", f"{ZAHLEN[i]} und {ZAHLEN[j]}")
    for i in range(8)
    for j in range(8)
]
NEW = [(f"{source} now", f"{target} jetzt") for source, target in PAIRS[:40]]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = TranslationOptions(
        source_language="en", target_language="de", tokenizer="word", lowercase=True
    )
    data = TranslationData.from_pairs(PAIRS, options=options)
    learner = Learner(data, choices={**CHOICES, "model_config": SMALL}, quiet=True)
    return learner.export(tmp_path_factory.mktemp("like") / "export")


def read(export: Path, **options: Any) -> TranslationData:
    return TranslationData.from_pairs(NEW, options=TranslationOptions(like=export, **options))


def test_unset_options_are_those_of_the_export(export: Path) -> None:
    options = TranslationOptions(like=export)
    assert (options.source_language, options.target_language) == ("en", "de")
    assert (options.tokenizer, options.lowercase) == ("word", True)
    data = TranslationData.from_pairs(NEW, options=options)
    assert data.like == export
    assert data.facts()["lowercase"] is True
    assert TranslationData.from_pairs(NEW).facts()["lowercase"] is False


def test_a_larger_model_is_trained_on_the_kept_vocabulary(export: Path) -> None:
    saved = Learner(read(export), start=export, choices=CHOICES, quiet=True)
    assert "from the weights of the export" in saved.plan["trainable"].reason
    assert "replace the initial ones" in saved.plan["weights"].reason
    learner = Learner(read(export), choices={**CHOICES, "model_config": LARGER}, quiet=True)
    assert learner.built.preprocessor.arguments() == saved.built.preprocessor.arguments()
    assert "jetzt" not in learner.built.preprocessor.target.vocab.get_itos()  # type: ignore[attr-defined]
    assert learner.plan.values["model_config"] == LARGER
    assert learner.plan.values["start"]["model"] is None
    assert learner.plan["tokenizer"].reason.startswith(f"As in the export {export}")
    learner.fit()
    assert learner.task.target.normalize("Two Ä") == "two ä"  # type: ignore[attr-defined]
    again = Learner(read(export), plan=Plan.from_json(learner.plan.to_json()), quiet=True)
    again.fit()
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, learner.model.state_dict()[name])


@pytest.mark.parametrize(
    ("option", "value", "saved"),
    [
        ("source_language", "fr", "en"),
        ("target_language", "en", "de"),
        ("tokenizer", "bpe", "word"),
        ("vocab_size", 17, "30000"),
        ("shared_vocab", True, "False"),
        ("lowercase", False, "True"),
        ("normalization", "nfkc", "nfc"),
    ],
)
def test_other_options_are_refused(export: Path, option: str, value: Any, saved: str) -> None:
    with pytest.raises(InputError, match=rf"{option} is {value!r}, but .* it is '?{saved}"):
        TranslationOptions(like=export, **{option: value})


def test_files_and_columns_in_other_languages_are_refused(export: Path, tmp_path: Path) -> None:
    options = TranslationOptions(like=export)
    for language, texts in (("en", NUMBERS), ("de", ZAHLEN), ("fr", NUMBERS)):
        (tmp_path / f"x.{language}").write_text("\n".join(texts))
    assert (
        TranslationData.from_files(tmp_path / "x.en", tmp_path / "x.de", options=options).like
        == export
    )
    with pytest.raises(InputError, match=r"x.fr is in the language 'fr', but .* is 'en'"):
        TranslationData.from_files(tmp_path / "x.fr", tmp_path / "x.de", options=options)
    with pytest.raises(InputError, match=r"de is in the language 'de', but .* is 'en'"):
        frame = {"de": ZAHLEN, "en": NUMBERS}
        TranslationData.from_df(frame, "de", "en", options=options)


def test_a_choice_of_another_vocabulary_is_refused(export: Path) -> None:
    with pytest.raises(PlanError, match=r"max_tokens is 9, but the export .* without like="):
        Learner(read(export), choices={"max_tokens": 9}, quiet=True)


def test_an_export_of_another_domain_is_refused(tmp_path: Path) -> None:
    x = torch.randn(40, 3)
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
    folder = Learner(data, quiet=True).export(tmp_path / "tensors")
    with pytest.raises(ArtefactError, match="of the domain 'tensors', but the data belong to 'tr"):
        TranslationOptions(like=folder)


@pytest.mark.parametrize("header", ["english,deutsch,source,target\n", ""])
def test_a_table_is_scored_by_the_columns_of_training(tmp_path: Path, header: str) -> None:
    rows = [f"{source},{target},x y z,z y x" for source, target in PAIRS]
    (tmp_path / "t.csv").write_text(header + "\n".join(rows) + "\n")
    columns = {"source_column": "english", "target": "deutsch"} if header else {"columns": "0,1"}
    data = TranslationData.from_path(tmp_path / "t.csv", {**columns, "tokenizer": "word"})
    learner = Learner(data, choices={**CHOICES, "model_config": SMALL}, quiet=True)
    like = learner.export(tmp_path / "export")
    (tmp_path / "new.csv").write_text(header + "\n".join(rows[:5]) + "\n")
    options = {"like": like, "evaluate": "auto"}
    scored = TranslationData.from_path(tmp_path / "new.csv", options)
    assert scored.raw("test") == [source for source, _ in PAIRS[:5]]
    assert scored.references("test") == [target for _, target in PAIRS[:5]]
    # A table with other columns is read by these.
    (tmp_path / "other.csv").write_text("target,source\n" + ",".join(PAIRS[0][::-1]) + "\n")
    other = TranslationData.from_path(tmp_path / "other.csv", options)
    assert other.raw("test") == [PAIRS[0][0]]
