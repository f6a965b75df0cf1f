"""Tags of words: entities, alignment of words and subwords, training, prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flambeau import Learner, Predictor
from flambeau.doctor import TrainingSetup
from flambeau.errors import ArgumentError, FlambeauError, InputError, SplitError
from flambeau_text import SubwordTokenizer, TagData, TagOptions
from flambeau_text.tagging import Entity, EntityF1, entities_of
from flambeau_text.tagging.checks import check_copies
from flambeau_text.tagging.conll import read_words
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
        "-DOCSTART- O\r\n\r\n# id 1\r\nAnn NNP B-PER\r\nsings VB O\r\n\r\n\r\n"
        "Rome\u2028s NNP B-LOC\r\n"
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


CONLL_U = """\
# sent_id = 1
1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_
1\tde\tde\tADP\tE\t_\t3\tcase\t_\t_
2\tle\tle\tDET\tD\tGender=Masc\t3\tdet\t_\t_
3\tchat 2\tchat\tNOUN\tN\t_\t0\troot\t_\t_
3.1\tvu\tvoir\tVERB\tV\t_\t_\t_\t_\t_

# sent_id = 2
1\tva\taller\tVERB\t_\t_\t0\troot\t_\t_
"""


def test_a_file_of_conll_u_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.conllu"
    file.write_text(CONLL_U)
    data = TagData.from_conll(file, valid=file)
    assert data.raw("train") == [["de", "le", "chat 2"], ["va"]]
    assert data.samples["tags"] == [["ADP", "DET", "NOUN"], ["VERB"]] * 2
    assert "Words from FORM, tags from UPOS of 10 columns of CoNLL-U." in data.report()
    assert "Words from FORM" in Learner(data, quiet=True).plan["task"].reason
    options = TagOptions(words="lemma", tags="deprel")
    data = TagData.from_conll(file, valid=file, options=options)
    assert data.raw("train") == [["de", "le", "chat"], ["aller"]]
    assert data.samples["tags"][0] == ["case", "det", "root"]
    with pytest.raises(InputError, match=r"line 9: .* has no XPOS"):
        TagData.from_conll(file, valid=file, options=TagOptions(tags="xpos"))
    with pytest.raises(InputError, match=r"has no column tags='pos'. Give a number from 0 to 9"):
        TagData.from_conll(file, valid=file, options=TagOptions(tags="pos"))
    assert TagData.from_path(file, {"target": "deprel"}).facts()["class_names"] == [
        "case", "det", "root",
    ]  # fmt: skip


def test_words_without_tags_are_read_for_predictions(tmp_path: Path) -> None:
    file = tmp_path / "a.conllu"
    file.write_text(CONLL_U.replace("ADP", "_").replace("DET", "_").replace("VERB", "_"))
    assert read_words(file) == [["de", "le", "chat 2"], ["va"]]
    with pytest.raises(InputError, match="has no UPOS"):
        TagData.from_conll(file, valid=file)
    file = tmp_path / "a.conll"
    file.write_text("The\ncat\n\nIt\n")
    assert read_words(file) == [["The", "cat"], ["It"]]
    for header in ("word", "Token"):
        file.write_text(f"{header}\nThe\ncat\n")
        with pytest.raises(InputError, match=f"begins with names of columns, '{header}'"):
            read_words(file)


def test_columns_of_conll_are_chosen(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("Ann NNP I-NP B-PER\nsings VB O O\n\nRome NNP I-NP B-LOC\n")
    data = TagData.from_conll(file, valid=file)
    assert data.facts()["class_names"] == ["B-LOC", "B-PER", "O"]
    assert "Words from column 0, tags from column 3 of 4 columns, from 0." in data.report()
    data = TagData.from_conll(file, valid=file, options=TagOptions(tags=1))
    assert data.facts()["class_names"] == ["NNP", "VB"]
    with pytest.raises(InputError, match=r"no column tags='4'\. .* from 0 to 3"):
        TagData.from_conll(file, options=TagOptions(tags="4"))
    file.write_text("1 Ann B-PER\n2 sings O\n\n1 Rome B-LOC\n")
    with pytest.raises(InputError, match=r"The first column of .* numbers the words"):
        TagData.from_conll(file)
    data = TagData.from_conll(file, valid=file, options=TagOptions(words="1"))
    assert data.raw("train") == [["Ann", "sings"], ["Rome"]]
    with pytest.raises(InputError, match="are the same column, 2"):
        TagData.from_conll(file, options=TagOptions(words="2"))
    with pytest.raises(ArgumentError, match=r"tags must be the name of a column, not 1\.5"):
        TagOptions(tags=1.5)


def test_other_numbered_formats_are_read(tmp_path: Path) -> None:
    """CoNLL-U Plus names its columns; with eleven columns none is known."""
    file = tmp_path / "a.conllup"
    rows = "1-2\tdu\t_\n1\tde\tADP\n2\tle\tDET\n2.1\tvu\tVERB\n\n1\tva\tVERB\n"
    file.write_text("# global.columns = ID FORM UPOS\n" + rows)
    data = TagData.from_conll(file, valid=file)
    assert data.samples["sentence"][:2] == [["de", "le"], ["va"]]
    file.write_text(rows)
    with pytest.raises(InputError, match="not known which one has them"):
        TagData.from_conll(file)
    data = TagData.from_conll(file, valid=file, options=TagOptions(words="1"))
    assert data.samples["tags"][:2] == [["ADP", "DET"], ["VERB"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5 le le DET D _ 3 det _ _", "line 10: .* has a word without a tag"),
        ("_\tle\tle\tDET\tD\t_\t3\tdet\t_\t_", "line 10: .* begins with '_'"),
        ("2\tle\tle\tDET", "line 10: .* has 4 columns, separated by a tab"),
    ],
)
def test_broken_lines_of_conll_u_are_named(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.conllu"
    more = "".join(f"{n}\tva\taller\tVERB\t_\t_\t0\troot\t_\t_\n" for n in range(1, 30))
    file.write_text(CONLL_U.rstrip("\n") + "\n" + line + "\n\n" + more)
    with pytest.raises(InputError, match=message):
        TagData.from_conll(file)


def test_a_number_sign_with_a_tag_of_other_words_is_a_word(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("# SYM\nfive NUM\n\ngive VERB\n# SYM\nsix NUM\n\n# id5 en\nwe PRON\n")
    data = TagData.from_conll(file, valid=file)
    assert data.raw("train") == [["#", "five"], ["give", "#", "six"], ["we"]]


def test_empty_words_and_names_of_columns_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("x\tB-PER\n\tO\n")
    with pytest.raises(InputError, match=r"line 2: .* has no word before the tab"):
        TagData.from_conll(file)
    file.write_text("token\tner_tags\nAnn\tB-PER\nsings\tO\n")
    with pytest.raises(InputError, match=r"begins with names of columns, 'token\\tner_tags'"):
        TagData.from_conll(file)


def test_parts_of_conll_have_one_format(tmp_path: Path) -> None:
    train, valid = tmp_path / "a.conll", tmp_path / "b.conll"
    train.write_text("Ann NNP I-NP B-PER\nsings VB O O\n")
    valid.write_text("Ann NNP I-NP\nsings VB O\n")
    with pytest.raises(InputError, match="has 3 columns, but the train file has 4"):
        TagData.from_conll(train, valid=valid)


def test_comments_and_separators_of_conll(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("#begin document (x)\n#id=1\n# id 1\n#now O\nAnn NNP\tB-PER\nsings O\n")
    with pytest.raises(InputError, match=r"line 6: .* has 2 columns, separated by a space"):
        TagData.from_conll(file)
    file.write_text("#begin document (x)\n#id=1\n# id 1\n#now O\nAnn B-PER\nsings O\n")
    assert TagData.from_conll(file, valid=file).raw("train") == [["#now", "Ann", "sings"]]
    # Tabs separate the columns of all lines: the word has a space, and the plan says so.
    file.write_text("Ann NNP\tB-PER\nsings\tO\n")
    assert "'Ann NNP' is one word" in TagData.from_conll(file, valid=file).report()


def test_columns_of_an_export_are_used_where_they_exist(tmp_path: Path) -> None:
    frame = {"tokens": [["Ann", "sings"]] * 2, "mine": [["B-PER", "O"]] * 2}
    learner = Learner(
        TagData.from_df(frame, tags="mine", valid=frame), quiet=True, choices={"probe": "off"}
    )
    folder = learner.export(tmp_path / "model")
    file = tmp_path / "a.conll"
    file.write_text("Ann B-PER\nsings O\n")
    data = TagData.from_conll(file, valid=file, options=TagOptions(like=folder))
    assert data.raw("train") == [["Ann", "sings"]]
    data = TagData.from_df({"words": [["Ann"]], "tags": [["O"]]}, valid={
        "words": [["Ann"]], "tags": [["O"]]}, options=TagOptions(like=folder))  # fmt: skip
    assert data.raw("train") == [["Ann"]]


def test_lines_of_conll_have_the_same_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("Ann NNP B-PER\nsings VB\n")
    with pytest.raises(InputError, match=r"line 2: .* has 2 columns, .* the first .* has 3"):
        TagData.from_conll(file)
    # With tabs a word may have spaces, and an empty field is seen.
    file.write_text("New York\tB-LOC\t\nis \tO\n")
    data = TagData.from_conll(file, valid=file)
    assert data.raw("train") == [["New York", "is"]]
    file.write_text("Ann\tNNP\tB-PER\nsings\t\tO\n")
    data = TagData.from_conll(file, valid=file)
    assert data.samples["tags"] == [["B-PER", "O"]] * 2
    with pytest.raises(InputError, match=r"'sings' has no tag"):
        TagData.from_conll(file, options=TagOptions(tags="1"))


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


@pytest.mark.parametrize("seed", range(8))
def test_a_draw_leaves_each_tag_in_train(seed: int) -> None:
    words = [[f"w{row}", "x"] for row in range(20)]
    tags = [["A", "B"] for _ in range(20)]
    tags[4], tags[9] = ["RARE", "B"], ["RARE", "ODD"]
    data = TagData.from_arrays(words, tags, valid=8, test=8, seed=seed)
    train = {tag for row in data.split.train.tolist() for tag in tags[row]}
    assert train == {"A", "B", "RARE", "ODD"}
    rows = np.concatenate([data.split.part(part) for part in ("train", "valid", "test")])
    assert sorted(rows.tolist()) == list(range(20))
    moved = len(data.split.train) - 4
    assert moved <= 2
    assert any("moved to train" in note for note in data.split.notes) == (moved > 0)


def test_copies_of_a_sentence_are_in_one_part() -> None:
    words = [[f"w{row % 10}", "x"] for row in range(40)]
    tags = [["A", "B"]] * 40
    data = TagData.from_arrays(words, tags, valid=0.3)
    parts = [{tuple(own) for own in data.raw(part)} for part in ("train", "valid")]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert "a group is all copies of one sentence" in data.report()


def test_copies_of_a_sentence_are_in_one_fold() -> None:
    words = [[f"w{row % 10}", "x"] for row in range(40)]
    data = TagData.from_arrays(words, [["A", "B"]] * 40, valid=0.3)
    for fold in data.folds(3):
        parts = [{tuple(own) for own in fold.raw(part)} for part in ("train", "valid")]
        assert not parts[0] & parts[1]


def test_a_part_whose_sentences_are_needed_in_train_is_refused() -> None:
    words, tags = [["a", "b"], ["c", "d"], ["e", "f"]], [["A", "B"], ["C", "D"], ["E", "F"]]
    with pytest.raises(SplitError, match="only ones with some tag"):
        TagData.from_arrays(words, tags, valid=1)


def test_the_doctor_finds_copies_across_given_parts() -> None:
    words = [[f"w{row}", "x"] for row in range(20)]
    tags = [["A", "B"]] * 20
    others = [[f"v{row}", "x"] for row in range(6)]
    data = TagData.from_arrays(words, tags, valid=(words[:4] + others, tags[:10]))
    [found] = check_copies(TrainingSetup(data, {}, lambda: pytest.fail("it builds the model")))
    assert found.code == "duplicates-across-parts"
    assert "4 of 10 valid sentences are also in train" in found.what
    data = TagData.from_arrays(words, tags, valid=(others, tags[:6]))
    assert not check_copies(TrainingSetup(data, {}, lambda: pytest.fail("it builds the model")))


@pytest.mark.parametrize("content", ["", "\n\n", "-DOCSTART- O\n", "# a comment\n"])
def test_a_file_without_sentences_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(InputError, match="There are no sentences"):
        TagData.from_conll(tmp_path / "a.conll")
    assert list(TagData.inputs_from_path(tmp_path / "a.conll")) == []


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
