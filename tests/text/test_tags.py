"""Tags of words: entities, alignment of words and subwords, training, prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flambeau import Learner, Predictor
from flambeau.errors import FlambeauError, InputError
from flambeau_text import SubwordTokenizer, TagData, TagOptions
from flambeau_text.tagging import Entity, EntityF1, entities_of
from flambeau_text.tagging.domain import made_sentences
from flambeau_text.tagging.preprocess import TagPreprocessor

CLASSES = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B"]


def by_rules(tags: list[str]) -> set[tuple[str, int, int]]:
    """The rules of CoNLL-2000, one border after the other."""
    found: set[tuple[str, int, int]] = set()
    before, kind_before, begin = "O", "", 0
    for at, tag in enumerate([*tags, "O"]):
        now, _, kind = tag.partition("-")
        ends = before in "ES" or (before in "BI" and now in "BSO")
        if ends or (before != "O" and kind_before != kind):
            found.add((kind_before, begin, at))
        starts = now in "BS" or (before in "ESO" and now in "EI")
        if starts or (now != "O" and kind_before != kind):
            begin = at
        before, kind_before = now, kind
    return found


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-A I-A O B-B", [("A", 0, 2), ("B", 3, 4)]),
        ("B-A B-A I-A", [("A", 0, 1), ("A", 1, 3)]),
        ("O I-A I-A", [("A", 1, 3)]),  # violates the scheme, and counts
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("S-A S-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A I-A E-A I-A", [("A", 0, 3), ("A", 3, 4)]),
        ("I-A-B I-A-B", [("A-B", 0, 2)]),
    ],
)
def test_entities_by_hand(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert entities_of(tags.split()) == [Entity(*each) for each in expected]


@pytest.mark.parametrize(
    ("scheme", "names"), [("BILOU", {"E": "L", "S": "U"}), ("BMES", {"I": "M"})]
)
def test_other_names_of_prefixes_mark_the_same_entities(scheme: str, names: dict[str, str]) -> None:
    draws = np.random.default_rng(2)
    for _ in range(50):
        tags = draws.choice(CLASSES, int(draws.integers(1, 12))).tolist()
        other = [f"{names.get(tag[0], tag[0])}{tag[1:]}" for tag in tags]
        assert entities_of(other) == entities_of(tags), (scheme, other)
    classes = [f"{names.get(tag[0], tag[0])}{tag[1:]}" for tag in CLASSES]
    logits, truth = torch.randn(4, 7, 9), torch.randint(0, 7, (4, 9))
    scores = []
    for each in (CLASSES, classes):
        metric = EntityF1(each)
        metric.update(logits, truth)
        scores.append(metric.compute())
    assert scores[0] == scores[1] > 0


def test_prefixes_without_a_type_mark_entities() -> None:
    found = entities_of(["B", "I", "O", "B", "E", "S", "O", "I"])
    assert [(each.type, each.start, each.end) for each in found] == [
        ("_", 0, 2),
        ("_", 3, 5),
        ("_", 5, 6),
        ("_", 7, 8),
    ]


@pytest.mark.parametrize("tag", ["-PER", "BI-PER", "B-", "b", "PER", "b-PER", "X-PER", ""])
def test_other_tags_mark_no_entity(tag: str) -> None:
    with pytest.raises(ValueError, match="is no tag of an entity"):
        entities_of(["O", tag])


@pytest.mark.parametrize(
    ("tags", "odd"),
    [(["O", "PER"], "PER"), (["o", "b-per"], "b-per"), (["B-PER", "I_PER"], "I_PER"),
     (["DET", "VERB"], None), (["O", "B-PER"], None)],
)  # fmt: skip
def test_the_plan_says_why_entities_are_not_scored(tags: list[str], odd: str | None) -> None:
    data = TagData.from_arrays([["a", "runs"]] * 8, [tags] * 8, valid=2)
    reason = Learner(data).plan["task"].reason
    assert (f"not scored, because {odd!r} is not of the form B-TYPE" in reason) == bool(odd)
    assert odd or "not scored" not in reason


def test_entities_follow_the_rules_for_any_tags() -> None:
    draws = np.random.default_rng(0)
    for _ in range(300):
        tags = draws.choice(CLASSES, int(draws.integers(1, 12))).tolist()
        found = {(each.type, each.start, each.end) for each in entities_of(tags)}
        assert found == by_rules(tags), tags


def test_f1_counts_equal_spans_over_all_sentences() -> None:
    draws = np.random.default_rng(1)
    metric = EntityF1(CLASSES)
    right = predicted = target = 0
    for _ in range(6):
        lengths = draws.integers(1, 9, 5)
        logits = torch.tensor(draws.normal(size=(5, len(CLASSES), 9)))
        truth = torch.tensor(draws.integers(0, len(CLASSES), (5, 9)))
        # Half of the words are right, so that some entities are.
        best = torch.where(torch.rand(5, 9) < 0.7, truth, logits.argmax(1))
        logits = torch.nn.functional.one_hot(best, len(CLASSES)).transpose(1, 2).double()
        for row, length in enumerate(lengths.tolist()):
            truth[row, length:] = -100
            names = [[CLASSES[n] for n in each[row, :length].tolist()] for each in (best, truth)]
            own, expected = (by_rules(each) for each in names)
            right += len(own & expected)
            predicted += len(own)
            target += len(expected)
        metric.update(logits, truth)
    assert right > 5
    assert metric.compute() == pytest.approx(2 * right / (predicted + target), rel=1e-12)
    assert EntityF1(CLASSES).compute() == 0.0


def test_the_first_subword_of_each_word_has_its_tag() -> None:
    words = ["walking", "walked", "talking", "talked", "singing"] * 20
    tokenizer = SubwordTokenizer.train(words, kind="bpe", vocab_size=40)
    preprocessor = TagPreprocessor(tokenizer=tokenizer)
    sentence = ["walking", "", "sang", "walked"]
    [tokens], [starts] = preprocessor.align([sentence])
    pieces = [tokenizer.encode(word) for word in sentence]
    assert max(map(len, pieces)) > 1
    assert pieces[1] == []
    expected, at = [3], []
    for piece in pieces:
        at.append(len(expected))
        expected += piece or [0]
    assert tokens == [*expected, 3]
    assert starts == at
    batch = preprocessor.encode([sentence, "walking"])
    assert batch.inputs["starts"].tolist() == [at, [1, 0, 0, 0]]
    assert batch.masks["words"].tolist() == [[True] * 4, [True, False, False, False]]


@pytest.mark.parametrize("tokenizer", ["word", "character"])
def test_padding_changes_no_loss_and_no_gradient(tokenizer: str) -> None:
    data = made_sentences(60)
    options = TagOptions(tokenizer=tokenizer)
    data = TagData(data.samples, data.split, options)
    learner = Learner(data, choices={"model_config": {"embedding_dim": 5, "hidden_size": 6}})
    model, task = learner.model.double().eval(), learner.task
    dataset = learner.built.dataset("train")
    rows = torch.tensor([0, 1, 2, 3, 4])

    def gradients(batches: list[torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        total = 0.0
        for part in batches:
            batch = dataset.batch(part)  # type: ignore[attr-defined]
            inputs = batch.inputs.values()
            loss, weight = task.loss(model(*inputs), batch)
            assert float(weight) == batch.weight
            loss.backward()
            total += float(loss.detach())
        return total, [value.grad.clone() for value in model.parameters() if value.grad is not None]

    together, singles = gradients([rows]), gradients([rows[at : at + 1] for at in range(5)])
    assert together[0] == pytest.approx(singles[0], rel=1e-12)
    for one, other in zip(together[1], singles[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_file_of_conll_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    text = (
        "-DOCSTART- O\r\n\r\n# id 1\r\nAnn NNP B-PER\r\nsings VB O\r\n\r\n\r\nRome\u2028s B-LOC\r\n"
    )
    file.write_bytes(text.encode())
    data = TagData.from_conll(file, valid=file)
    assert data.raw("train") == data.raw("valid") == [["Ann", "sings"], ["Rome\u2028s"]]
    assert data.facts()["class_names"] == ["B-LOC", "B-PER", "O"]
    assert data.samples["location"][0].endswith("a.conll, line 4")
    file.write_text("Ann B-PER\nsings\n")
    with pytest.raises(InputError, match=r"a\.conll, line 2: 'sings' has a word without a tag"):
        TagData.from_conll(file)
    file.write_bytes(b"Ann B-PER\nsin\xffgs O\n")
    with pytest.raises(InputError, match=r"a\.conll, line 2"):
        TagData.from_conll(file)


def test_a_number_sign_may_be_a_word(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("# id 1\n# O\n1 O\nAnn B-PER\n\n# text = we # Ann\nwe O\n# O\nAnn B-PER\n")
    data = TagData.from_conll(file, valid=file)
    assert data.raw("train") == [["#", "1", "Ann"], ["we", "#", "Ann"]]
    # Comments may end like a tag; they have another number of columns.
    file.write_text("# newpar id = B-12\n# text = World War I\nWorld O\nWar B-X\n\n# I\nA O\n")
    assert TagData.from_conll(file, valid=file).raw("train") == [["World", "War"], ["#", "A"]]


@pytest.mark.parametrize(
    ("sentences", "tags", "message"),
    [
        ([["a", "b"]], [["O"]], "train sentence 0 has 2 words, but 1 tags"),
        ([["a"], []], [["O"], []], "train sentence 1: there are no words"),
        ([["a"], [3]], [["O"], ["B-A"]], "sentence 1, word 0: 3 is of type int"),
        ([["a"]], [["O"], ["O"]], "1 train sentences, but 2 lists"),
        ([["a"]] * 6, [["O"]] * 6, "All words have the tag 'O'"),
    ],
)
def test_bad_sentences_are_named(sentences: list, tags: list, message: str) -> None:
    with pytest.raises(FlambeauError, match=message):
        TagData.from_arrays(sentences, tags)


def test_a_tag_only_in_valid_is_refused() -> None:
    with pytest.raises(InputError, match="B-X are in no train sentence"):
        TagData.from_arrays([["a", "b"]] * 4, [["O", "B-A"]] * 4, valid=([["a"]], [["B-X"]]))


def test_entities_are_learned_and_exported(tmp_path: Path) -> None:
    learner = Learner(made_sentences(200), choices={"probe": "off"})
    learner.fit(8)
    scores = learner.evaluate("test")
    assert scores["entity_f1"] > 0.95
    assert scores["accuracy"] > 0.97
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    [found] = predictor.predict([["Kim", "Lee", "sees", "New", "York"]])
    assert found.entities == (Entity("PER", 0, 2), Entity("LOC", 3, 5))
    assert str(predictor.predict("Ann sees Rome")) == "B-PER O B-LOC"
    assert len(found.probabilities) == 5
    with pytest.raises(InputError, match="Item 0: there are no words"):
        predictor.predict([""])
    assert learner.interpret().report(tmp_path / "report.md").exists()


def test_tags_that_are_no_entities_have_no_f1() -> None:
    data = TagData.from_arrays([["a", "runs"]] * 8, [["DET", "VERB"]] * 8, valid=2)
    learner = Learner(data)
    assert set(learner.task.metrics()) == {"accuracy"}
    assert learner.plan.values["keep_best"] == "valid_loss"


def test_sentences_of_equal_lengths_are_no_finding() -> None:
    sentences = [["Ann", "saw", name] for name in ("Rome", "Oslo", "Bob", "Eve") * 5]
    tags = [["B-PER", "O", kind] for kind in ("B-LOC", "B-LOC", "B-PER", "B-PER") * 5]
    learner = Learner(TagData.from_arrays(sentences, tags, valid=4))
    assert "constant-input" not in learner.doctor().codes
    same = Learner(TagData.from_arrays(sentences[:1] * 20, tags[:1] * 20, valid=4))
    assert "constant-input" in same.doctor().codes
