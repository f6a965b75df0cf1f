"""Pretrained encoders for labels and tags, against transformers; all models are tiny and random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, Plan, Predictor
from flambeau.errors import ArgumentError, ArtefactError, FlambeauError, InputError, PlanError
from flambeau.training.optim.groups import parameter_groups
from flambeau_text import TagData, TagOptions, TextData, TextOptions, token_attributions
from flambeau_text.classification.preprocess import EncoderTextPreprocessor, shares
from flambeau_text.tagging.domain import made_sentences
from flambeau_text.tokenization.encoder_tokenizer import EncoderTokenizer

KINDS = ("bert", "distilbert", "roberta", "modernbert")
TEXTS = [
    f"The {animal} sees {n} {what}."
    for animal in ("red dog", "cat", "blue bird")
    for n in (2, 7)
    for what in ("apples", "pears\nand apples", "dogs [SEP] </s>", "birds")
]
LABELS = ["fruit" if "apples" in text or "pears" in text else "animal" for text in TEXTS]
PAIRS = [(one, other) for one, other in zip(TEXTS, TEXTS[::-1], strict=True)]
FAST: dict[str, Any] = {"probe": "off", "device": "cpu", "precision": "fp32", "num_threads": 1}
TOLERANCE: dict[str, float] = {"rtol": 0, "atol": 2e-6}


@pytest.fixture(scope="module", params=KINDS)
def folder(
    request: pytest.FixtureRequest, pretrained: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return pretrained.save_encoder(
        tmp_path_factory.mktemp("encoders") / request.param, request.param
    )


@pytest.fixture(scope="module")
def bert(pretrained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.save_encoder(tmp_path_factory.mktemp("encoders") / "bert", "bert")


def labelled(folder: Path, texts: Any = TEXTS, **options: Any) -> TextData:
    given = TextOptions(language_model=folder, **options)
    return TextData.from_arrays(texts, LABELS, valid=6, options=given)


def learner_of(data: Any, *architecture: str, **choices: Any) -> Learner:
    return Learner(data, *architecture, choices={**FAST, **choices}, seed=0, quiet=True)


# ---------------------------------------------------------------- against transformers


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_and_features_equal_those_of_transformers(folder: Path, pairs: bool) -> None:
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    inputs: Any = PAIRS if pairs else TEXTS
    learner = learner_of(labelled(folder, inputs))
    batch = learner.built.preprocessor.encode(inputs)
    model: Any = learner.model.eval()
    own = batch.inputs.get("token_types")
    with torch.no_grad():
        found = model.encoder.encoder(batch.inputs["tokens"], batch.inputs["lengths"], own)
    for row, given in enumerate(inputs):
        if any(special in str(given) for special in ("[SEP]", "</s>")):
            continue  # transformers reads these as special tokens, flambeau as text
        wanted = tokenizer(*(given if pairs else (given,)), return_tensors="pt",
                           return_token_type_ids=network.config.model_type == "bert")  # fmt: skip
        n = wanted["input_ids"].shape[1]
        assert batch.inputs["tokens"][row, :n].tolist() == wanted["input_ids"][0].tolist()
        assert int(batch.inputs["lengths"][row]) == n
        with torch.no_grad():
            features = network(**wanted).last_hidden_state[0]
        torch.testing.assert_close(found[row, :n], features, **TOLERANCE)
    assert (own is not None) == (pairs and network.config.model_type in ("bert", "distilbert"))


def test_a_special_token_written_in_a_text_is_text(folder: Path) -> None:
    tokenizer = EncoderTokenizer.from_folder(folder)
    special = {tokenizer.special.start, tokenizer.special.end}
    assert not special & set(tokenizer.encode("a [SEP] b </s> [CLS] <s>"))


@pytest.mark.parametrize("n", [6, 9, 10, 14])
def test_long_texts_are_cut_as_by_transformers(bert: Path, n: int) -> None:
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(bert)
    own = EncoderTokenizer.from_folder(bert)
    short, long = "red dog", "The blue bird sees 7 pears and 2 apples and a cat"
    for pair in ((short, long), (long, short), (long, long)):
        reader = EncoderTextPreprocessor(tokenizer=own, max_length=n, n_texts=2)
        rows, cut = reader.tokens([[pair[0]], [pair[1]]])
        wanted = tokenizer(*pair, truncation=True, max_length=n)["input_ids"]
        assert rows.texts[0].padded(torch.tensor([0]))[0][0].tolist() == wanted
        assert cut == 1
    single = EncoderTextPreprocessor(tokenizer=own, max_length=n)
    wanted = tokenizer(long, truncation=True, max_length=n)["input_ids"]
    assert single.encode([long]).inputs["tokens"][0].tolist() == wanted
    both = EncoderTextPreprocessor(tokenizer=own, max_length=n, truncation="head_tail")
    ids, whole = both.encode([long]).inputs["tokens"][0].tolist(), own.encode(long)
    head = -(-(n - 2) // 2)
    assert ids[1:-1] == whole[:head] + whole[len(whole) - (n - 2 - head) :]


def test_the_longer_text_of_a_pair_is_cut_first() -> None:
    assert shares([3, 9], 10) == [3, 7]
    assert shares([9, 3], 10) == [7, 3]
    assert shares([9, 9], 11) == [5, 6]
    assert shares([2, 3], 10) == [2, 3]


# ---------------------------------------------------------------- training and exports


def test_a_classifier_learns_and_its_export_needs_no_folder(
    pretrained: Any, tmp_path: Path
) -> None:
    source = pretrained.save_encoder(tmp_path / "source", "bert")
    data = labelled(source)
    learner = learner_of(data, batch_size=6)
    assert learner.plan.values["architecture"] == "hf_encoder"
    assert learner.plan.values["weights"] == str(source.resolve())
    assert learner.plan.values["lr"] == 3e-5
    assert learner.plan.values["max_length"] == 48
    before = learner.evaluate("valid")["loss"]
    learner.fit(6, lr=2e-3)
    assert learner.evaluate("valid")["loss"] < before
    expected = learner.predict(TEXTS[:5])
    export = learner.export(tmp_path / "model")
    text = (export / "flambeau.json").read_text()
    assert json.loads(text)["model"]["arguments"]["weights"] is None
    shutil.rmtree(source)
    predictor = Predictor.load(export)
    for one, other in zip(predictor.predict(TEXTS[:5]), expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    values = token_attributions(predictor, TEXTS[0])
    assert values.tokens[0] == "[CLS]"
    assert len(values.tokens) == len(values.values)
    assert any(values.values)


def test_pairs_share_a_row_and_are_trained(bert: Path, tmp_path: Path) -> None:
    learner = learner_of(labelled(bert, PAIRS), batch_size=6)
    batch = next(iter(learner.built.loader("train").batches(0)))
    assert set(batch.inputs) == {"tokens", "lengths", "token_types"}
    assert batch.inputs["token_types"].max() == 1
    learner.fit(1, lr=1e-3)
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    assert predictor.predict([PAIRS[0]])[0].label in ("fruit", "animal")
    with pytest.raises(InputError, match="is not a pair"):
        predictor.predict(["one text"])
    with pytest.raises(InputError, match="both texts of a pair into one row"):
        learner_of(labelled(bert, PAIRS), "bag").model  # noqa: B018


def test_layers_are_unfrozen_in_groups(folder: Path) -> None:
    learner = learner_of(labelled(folder))
    names = list(parameter_groups(learner.model))
    blocks = [name for name in names if name.startswith("block_")]
    assert names[0] == "embedding"
    assert names[-1] == "head"
    assert len(blocks) == (3 if folder.name == "modernbert" else 2)
    learner.freeze()
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    learner.fit(1, lr=1e-2)
    after = learner.model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert changed == ["head.1.weight", "head.1.bias"]
    assert not [name for name, _ in learner.model.named_parameters() if "pooler" in name]
    learner.gradual_unfreeze(1)


def test_a_new_head_starts_from_an_export(bert: Path, tmp_path: Path) -> None:
    learner = learner_of(labelled(bert), model_config={"dropout": 0.3, "pooling": "mean"})
    head: Any = learner.model.head[0]  # type: ignore[index]
    assert head.p == 0.3
    export = learner_of(labelled(bert)).export(tmp_path / "model")
    data = TextData.from_arrays(TEXTS, LABELS, valid=6, options=TextOptions(like=export))
    again = Learner(data, start=export, choices=FAST, quiet=True)
    new = Learner(data, choices=FAST, quiet=True)
    other = Learner(TextData.from_arrays(TEXTS, LABELS, valid=6), start=export, quiet=True)
    assert new.plan.values["architecture"] == "hf_encoder"
    assert new.plan.values["weights"] is None
    assert (again.plan.values["epochs"], again.plan.values["lr"]) == (3, 3e-5)
    assert new.plan.values["lr"] == 1e-3  # its weights are random
    stored = Predictor.load(export).model.state_dict()
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, stored[name])
        assert torch.equal(value, other.model.state_dict()[name])


def test_random_weights_are_not_fine_tuned(bert: Path) -> None:
    tags = made_sentences_with(bert)
    for data in (labelled(bert), tags):
        tuned, random = learner_of(data).plan, learner_of(data, weights=None).plan
        assert (tuned["epochs"].value, tuned["lr"].value) == (3, 3e-5)
        assert random["epochs"].value > 3
        assert random["lr"].value == 1e-3
        for key in ("epochs", "lr", "batch_size"):
            assert "fine-tuning" not in random[key].reason


def test_a_plan_is_replayed_and_a_replaced_folder_refused(pretrained: Any, tmp_path: Path) -> None:
    source = pretrained.save_encoder(tmp_path / "source", "bert")
    data = labelled(source)
    learner = learner_of(data)
    again = Learner(data, plan=Plan.from_json(learner.plan.to_json()), seed=0, quiet=True)
    for one, other in zip(again.model.parameters(), learner.model.parameters(), strict=True):
        assert torch.equal(one, other)
    weights: Any = learner_of(data, weights=None).model
    assert not torch.equal(next(weights.parameters()), next(iter(learner.model.parameters())))
    shutil.copy(source / "model.safetensors", tmp_path / "kept")
    (source / "model.safetensors").write_bytes(b"replaced" * 9)
    with pytest.raises(ArtefactError, match="differs from the one with which the data were"):
        learner_of(data).model  # noqa: B018


def test_texts_that_are_cut_are_counted(bert: Path) -> None:
    texts = [text + " red dog" * 40 if at % 2 else text for at, text in enumerate(TEXTS)]
    learner = learner_of(labelled(bert, texts))
    assert learner.plan.values["max_length"] == 48
    finding = next(each for each in learner.doctor().findings if each.code == "truncated-texts")
    assert finding.evidence["texts"] == sum(
        len(texts[row]) > 200 for row in learner.data.split.train.tolist()
    )
    with pytest.raises(PlanError, match="at most 48, the number of positions"):
        learner_of(labelled(bert), max_length=64)


# ---------------------------------------------------------------- tags


def test_tags_are_at_the_first_token_of_each_word(folder: Path) -> None:
    import tokenizers
    import transformers

    learner = learner_of(made_sentences_with(folder))
    reader: Any = learner.built.preprocessor
    sentences = [["Ann", "sees", "New", "York"], ["in", "Lima", "Max", "walked", "!"]]
    tokens, starts = reader.align(sentences)
    inner = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    if folder.name in ("roberta", "modernbert"):
        of_words = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        inner.backend_tokenizer.pre_tokenizer = of_words
    for words, ids, at in zip(sentences, tokens, starts, strict=True):
        wanted = inner(words, is_split_into_words=True)
        assert ids == wanted["input_ids"]
        assert at == [wanted.word_ids().index(word) for word in range(len(words))]


def test_words_of_split_bytes_are_those_of_the_sentence() -> None:
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers

    # As in Llama 3: one step divides the text, and the next one only maps its bytes.
    pattern = r"'s|'t|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
    inner: Any = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*TEXTS, "Ann don't pay 12345 dollars-a-day."] * 3, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )  # fmt: skip
    reader = EncoderTokenizer(json.loads(inner.to_str()), {})
    words = ["Ann", "don't", "pay", "12345", "dollars-a-day", "."]
    found = [token for ids in reader.encode_words(words) for token in ids]
    assert found == inner.encode(" " + " ".join(words), add_special_tokens=False).ids
    assert reader.encode_words(["", " pay"]) == [[], reader.encode_words(["pay"])[0]]


def made_sentences_with(folder: Path) -> TagData:
    data = made_sentences(160)
    return TagData(data.samples, data.split, TagOptions(language_model=folder))


def test_a_tagger_learns_and_is_exported(bert: Path, tmp_path: Path) -> None:
    learner = learner_of(made_sentences_with(bert), batch_size=8)
    assert learner.plan.values["architecture"] == "hf_encoder"
    assert list(parameter_groups(learner.model)) == ["embedding", "block_0", "block_1", "head"]
    before = learner.evaluate("valid")["loss"]
    learner.fit(4, lr=3e-3)
    assert learner.evaluate("valid")["loss"] < 0.7 * before
    sentence = [["Ann", "sees", "Rome"], ["Bob", "walks"]]
    expected = learner.predict(sentence)
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    assert [each.tags for each in predictor.predict(sentence)] == [each.tags for each in expected]
    with pytest.raises(InputError, match=r"Item 1: 60 words have \d+ tokens, but .* at most 48"):
        predictor.predict([["Ann"], ["Ann"] * 60])
    with pytest.raises(InputError, match=r"train sentence \d: 50 words have"):
        learner_of(TagData.from_arrays([[f"{n}", "b"] * 25 for n in range(5)],
                   [["O", "B-A"] * 25] * 5,
                   options=TagOptions(language_model=bert))).fit(1)  # fmt: skip


# ---------------------------------------------------------------- invalid folders


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(bert: Path, tmp_path: Path, name: str) -> None:
    source = shutil.copytree(bert, tmp_path / "source")
    (source / name).unlink()
    (source / "tokenizer_config.json").unlink()
    for options in (TextOptions, TagOptions):
        with pytest.raises(InputError, match=rf"source lacks .*{name}"):
            options(language_model=source)


def test_models_of_other_kinds_are_refused(pretrained: Any, tmp_path: Path) -> None:
    import transformers

    decoder = pretrained.save_model(tmp_path / "llama", "llama")
    with pytest.raises(InputError, match=r"type 'llama', which is no bidirectional encoder"):
        TextOptions(language_model=decoder)
    both = tmp_path / "bart"
    pretrained.encoder_tokenizer("roberta").save_pretrained(both)
    config = transformers.BartConfig(
        vocab_size=300, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    transformers.BartModel(config).save_pretrained(both)
    with pytest.raises(InputError, match="has an encoder–decoder model"):
        TextOptions(language_model=both)
    with pytest.raises(FlambeauError, match="is not the folder of a model of Hugging Face"):
        TagOptions(language_model=tmp_path)


def test_incomplete_weights_and_tokenizers_are_refused(pretrained: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = pretrained.save_encoder(tmp_path / "source", "bert")
    tensors = load_file(source / "model.safetensors")
    gone = next(name for name in tensors if "layer.1.attention.self.query.weight" in name)
    save_file({n: v for n, v in tensors.items() if n != gone}, source / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    with pytest.raises(InputError, match=r"for example .*query\.weight"):
        learner_of(labelled(source)).model  # noqa: B018
    plain = pretrained.save_encoder(tmp_path / "plain", "bert", template=False)
    with pytest.raises(InputError, match="has no post_processor"):
        TextOptions(language_model=plain)


@pytest.mark.parametrize(
    "options",
    [{"tokenizer": "bpe"}, {"vocab_size": 99}, {"lowercase": True}, {"normalization": "nfkc"}],
)
def test_the_tokens_of_an_encoder_cannot_be_changed(bert: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot be combined with language_model"):
        TextOptions(language_model=bert, **options)


def test_the_tokenizer_of_another_model_is_refused(
    bert: Path, pretrained: Any, tmp_path: Path
) -> None:
    other = pretrained.save_encoder(tmp_path / "roberta", "roberta")
    tokenizer = EncoderTokenizer.from_folder(other)
    for options in (TextOptions, TagOptions):
        with pytest.raises(InputError, match="its ids stand for other tokens"):
            options(language_model=bert, tokenizer=tokenizer)
    own = EncoderTokenizer.from_folder(bert)
    assert TextOptions(language_model=bert, tokenizer=own).tokenizer is own


def test_changed_settings_of_the_encoder_are_trained_and_exported(
    folder: Path, tmp_path: Path
) -> None:
    name = "attention_dropout" if folder.name in ("distilbert", "modernbert") else (
        "attention_probs_dropout_prob"
    )  # fmt: skip
    plain = learner_of(labelled(folder))
    changed = learner_of(labelled(folder), model_config={"encoder": {name: 0.75}})
    encoders = [each.model.encoder.encoder.network for each in (plain, changed)]
    assert getattr(encoders[1].config, name) == 0.75
    rates = [
        module.p
        for module in encoders[1].modules()
        if isinstance(module, torch.nn.Dropout) and module.p == 0.75
    ]
    assert rates or folder.name == "modernbert"  # which reads the rate from its settings
    for key, value in encoders[0].state_dict().items():
        assert torch.equal(value, encoders[1].state_dict()[key])
    exported = Predictor.load(changed.export(tmp_path / "export"))
    assert getattr(exported.model.encoder.encoder.network.config, name) == 0.75


def test_unknown_settings_of_an_encoder_are_refused(bert: Path) -> None:
    for changes, message in (
        (
            {"hidden_dropout": 0.5},
            "Did you mean 'hidden_dropout_prob'",
        ),
        (None, "must be a mapping of settings, not None"),
    ):
        with pytest.raises(ArgumentError, match=message):
            learner_of(labelled(bert), model_config={"encoder": changes}).model  # noqa: B018


def test_an_encoder_may_be_shortened_but_not_widened(bert: Path) -> None:
    shorter = learner_of(labelled(bert), model_config={"encoder": {"num_hidden_layers": 1}})
    assert len(shorter.model.encoder.encoder.network.encoder.layer) == 1
    with pytest.raises(InputError, match=r"cannot be loaded|lacks"):
        learner_of(labelled(bert), model_config={"encoder": {"intermediate_size": 99}}).model  # noqa: B018
    with pytest.raises(InputError):
        learner_of(labelled(bert), model_config={"encoder": {"num_hidden_layers": 9}}).model  # noqa: B018


def test_a_folder_as_the_architecture_is_explained(bert: Path) -> None:
    data = TextData.from_arrays(TEXTS, LABELS, valid=6)
    with pytest.raises(PlanError, match=r"name it for the data: TextOptions\(language_model="):
        Learner(data, str(bert))
    with pytest.raises(FlambeauError, match="needs a pretrained encoder: name its folder"):
        Learner(data, "hf_encoder").model  # noqa: B018
