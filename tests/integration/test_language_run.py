"""The shared parts of the language examples: the sampled loss, frozen recipes, runs of seconds."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def path_of_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def runs() -> ModuleType:
    return import_module("language_run")


def git(folder: Path, *words: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


# ---------------------------------------------------------------- the sampled loss


def layer(words: int, size: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(size, words, bias=bias, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
def test_a_sample_of_all_words_gives_the_exact_loss(runs: ModuleType, bias: bool) -> None:
    output = layer(30, 8, bias=bias)
    features = torch.randn(12, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(30, (12,))
    mask = torch.arange(12) != 5
    sample = torch.randperm(30), torch.zeros(30)
    found = runs.sampled_loss(output, features, targets, mask, sample)
    logits = output(features)[mask]
    expected = nn.functional.cross_entropy(logits, targets[mask], reduction="sum")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    parameters = [features, *output.parameters()]
    for a, b in zip(
        torch.autograd.grad(found, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_expected_sum_is_that_over_all_words(runs: ModuleType) -> None:
    output, exact, drawn = layer(40, 6), 10, 6
    features = torch.randn(5, 6, dtype=torch.float64)
    targets = torch.tensor([0, 9, 10, 25, 39])  # frequent and rare words
    own = output(features).gather(1, targets.unsqueeze(1)).squeeze(1)
    sums = torch.zeros(5, dtype=torch.float64)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(4_000):
            sample = runs.draw_words(targets, 40, exact, drawn, draws)
            for at in range(5):
                one = torch.arange(5) == at
                loss = runs.sampled_loss(output, features, targets, one, sample)
                sums[at] += (loss + own[at]).exp() / 4_000
    torch.testing.assert_close(sums, output(features).exp().sum(1), rtol=0.02, atol=0)


def test_the_words_of_a_step_hold_its_targets_once(runs: ModuleType) -> None:
    targets = torch.tensor([3, 25, 39, 25])
    draws = torch.Generator().manual_seed(0)
    words, log_shares = runs.draw_words(targets, 40, 10, 6, draws)
    assert sorted(set(words.tolist())) == sorted(words.tolist())
    assert {*range(10), 25, 39} <= set(words.tolist())
    assert log_shares.exp().tolist() == pytest.approx([1.0] * 12 + [6 / 28] * 6)
    every, shares = runs.draw_words(targets, 40, 10, 50, draws)
    assert sorted(every.tolist()) == list(range(40))
    assert not shares.any()


# ---------------------------------------------------------------- WikiText-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["awd_lstm", "decoder"])
def test_a_recipe_trains_and_continues(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module("wikitext2")
    arguments = [name, "--smoke", "--work", str(tmp_path)]
    module.main(arguments)
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    [path] = (tmp_path / "smoke-results").glob("*.jsonl")
    first, *curve = map(json.loads, path.read_text().splitlines())
    assert first["kind"] == "run"
    assert {"parameters", "tokens_per_second", "precision", "threads", "cpu", "seed"} <= set(first)
    assert curve[-1]["valid_word_perplexity"] < curve[0]["valid_word_perplexity"] < 60
    assert trained["valid_word_perplexity"] <= curve[-1]["valid_word_perplexity"] + 0.01
    module.main([*arguments, "--test"])
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scored["valid"] == pytest.approx(trained["valid_word_perplexity"], abs=0.01)
    module.main(arguments)  # the run has ended: nothing is trained
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["steps"] == trained["steps"]
    assert again["valid_word_perplexity"] == trained["valid_word_perplexity"]


def test_the_ngram_model_writes_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module("wikitext2")
    arguments = ["ngram", "--order", "2", "--smoke", "--work", str(tmp_path)]
    module.main(arguments)
    [record] = (tmp_path / "smoke-results" / "ngram.jsonl").read_text().splitlines()
    found = json.loads(record)
    assert found["order"] == 2
    assert 1 < found["valid_word_perplexity"] < 40  # the words follow each other
    assert {"seconds", "cpu", "cores"} <= set(found)
    module.main([*arguments, "--test"])
    assert 1 < json.loads(capsys.readouterr().out.splitlines()[-1])["test"] < 40
    assert not (tmp_path / "smoke-results" / "looks.jsonl").exists()


@pytest.mark.slow
def test_a_recipe_trains_within_a_time_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module("wikitext2")
    arguments = ["decoder", "--smoke", "--minutes", "0.02", "--work", str(tmp_path)]
    module.main(arguments)
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert trained["budget_minutes"] == 0.0  # rounded
    assert trained["steps"] > 0
    with pytest.raises(SystemExit):
        module.main([*arguments, "--test"])


def test_the_test_part_needs_a_committed_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = import_module("wikitext2")
    for name in ("wikitext2.py", "language_run.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"model": "decoder"}))
    git(tmp_path, "init")
    git(tmp_path, "add", "wikitext2.py", "language_run.py")
    git(tmp_path, "commit", "-m", "Add the scripts")
    monkeypatch.setattr(module, "EXAMPLES", tmp_path)
    scores = iter([{"test": 200.0}, {"test": 150.0}])
    monkeypatch.setattr(module, "test_score", lambda run, data: next(scores))

    def look() -> dict[str, Any]:
        run = module.Run.of("small", json.loads(path.read_text()), tmp_path, tmp_path)
        return module.look(run, None, path)

    with pytest.raises(SystemExit, match=r"small\.json is not as it was committed"):
        look()
    git(tmp_path, "add", "small.json")
    git(tmp_path, "commit", "-m", "Freeze the recipe")
    assert look()["test"] == look()["test"] == 200.0  # the second one is from the log
    path.write_text(json.dumps({"model": "awd_lstm"}))
    with pytest.raises(SystemExit, match="is not as it was committed"):
        look()
    git(tmp_path, "commit", "-am", "Change the recipe")
    assert look()["test"] == 150.0
    log = [json.loads(line) for line in (tmp_path / "looks.jsonl").read_text().splitlines()]
    assert [entry["test"] for entry in log] == [200.0, 150.0]


def test_weights_of_another_recipe_are_not_scored(tmp_path: Path) -> None:
    module: Any = import_module("wikitext2")
    with pytest.raises(SystemExit, match="no weights of this recipe"):
        module.test_score(module.Run.of("small", {"model": "decoder"}, tmp_path), None)


# ---------------------------------------------------------------- IMDb


def test_near_duplicates_share_half_of_their_words_in_order() -> None:
    module = import_module("imdb_reviews")
    words = [f"w{number}" for number in range(60)]
    other = " ".join(words)
    texts = [
        other,
        " ".join([*words[:50], *(f"x{number}" for number in range(40))]),  # a longer version
        " ".join(words[10:35]),  # an excerpt
        " ".join([*words[:15], *(f"x{number}" for number in range(40))]),  # only a quotation
        " ".join(words[::-1]),  # the same words in another order
        "w1 w2",
        "",
    ]
    found = module.near_duplicates(texts, [other, "w1 w2"])
    assert found.tolist() == [True, True, True, False, False, True, False]


def test_articles_are_written_as_ordinary_text(tmp_path: Path) -> None:
    module = import_module("imdb_reviews")
    text = (
        " \n = First = \n \n It 's a <unk> , 1 @,@ 000 @-@ year ( old ) one . \n = = Part = = \n"
        ' He said " yes " . \n = Second = \n The end . \n'
    )
    with gzip.open(tmp_path / "train.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    assert module.articles(tmp_path / "train.txt.gz") == [
        'First\nIt\'s a \u2047, 1,000-year (old) one.\nPart\nHe said "yes".',
        "Second\nThe end.",
    ]


def study_of(results: Path, **changes: Any) -> Any:
    """Return the study of the committed recipe with changes, without its data."""
    module: Any = import_module("imdb_ulmfit")
    recipe = {**json.loads(module.RECIPE.read_text()), **changes}
    return module.Study(recipe, results, results / "work", results, frozen=False)


def test_a_net_from_scratch_gets_the_time_of_the_same_pretrained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = import_module("imdb_ulmfit")
    study, rows = study_of(tmp_path), SimpleNamespace(rows=[{"seconds": 2.0}])
    monkeypatch.setattr(module, "_classifier", lambda *_: SimpleNamespace(fit=lambda _: rows))
    right = {"labels": "200", "net": "ulmfit", "seed": 1, "version": "", "seconds": 10.0}
    wrong = [{"labels": "1000"}, {"net": "scratch"}, {"seed": 2}, {"version": "old"}]
    looks = [{**right, "seconds": 90.0, **each} for each in wrong]
    own = study.recipe["classifier"]["200"]["ulmfit"]
    trial = {**right, "seed": 100, "seconds": 14.0, "settings": own}
    longer = {**trial, "seconds": 90.0, "settings": {**own, "epochs": 50}}
    for name, entries in (("looks", [right, *looks]), ("trials", [trial, longer])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, entries)))

    def epochs(seed: int) -> int:
        cell = module.Cell("200", "scratch", seed)
        return module._equal_time_epochs(study, None, cell, cell.settings(study))

    assert epochs(1) == 5
    assert epochs(100) == 7
    with pytest.raises(SystemExit, match="no result of this recipe with 200 labels and seed 0"):
        epochs(0)


def test_no_near_duplicate_of_a_scored_review_is_trained_on() -> None:
    module: Any = import_module("imdb_reviews")
    texts = [" ".join(f"{name}{number}" for number in range(12)) for name in "abcdef"]
    train = pd.DataFrame({"text": texts, "label": list(module.CLASSES) * 3})
    scored = pd.DataFrame({"text": [f"{texts[3]} again"], "label": ["negative"]})
    found = module.Reviews(train, scored, {"held_reviews": 1, "language_reviews": 9})
    wanted = [texts[row] for row in (1, 2, 4, 5)]
    assert list(found.labelled["text"]) == found.language == wanted
    assert sorted(found.draw(4, 0)["text"]) == wanted


def test_changed_settings_do_not_continue_the_run_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = import_module("imdb_ulmfit")
    used: list[Path] = []
    monkeypatch.setattr(module, "_labelled_data", lambda *_: None)
    monkeypatch.setattr(module, "_classifier", lambda *given: used.append(given[-1]))
    monkeypatch.setattr(module.language_run, "train_or_continue", lambda *_: sys.exit())
    study, cell = study_of(tmp_path), module.Cell("all", "ulmfit", 0)
    own = cell.settings(study)
    longer = {"finetune": {**study.recipe["finetune"], "minutes": 90}}
    for each, settings in (
        (study, own),
        (study, dict(own)),
        (study, {**own, "lr": 0.1}),
        (study_of(tmp_path, **longer), own),  # of another language model
    ):
        with pytest.raises(SystemExit):
            module.train_classifier(each, cell, settings, None)
    assert used[0] == used[1]
    assert len(set(used)) == 3


def test_stages_keep_their_folders_when_only_later_ones_change(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    for key, kept in (
        ("vocab_size", []),
        ("pretrain", ["prepare"]),
        ("finetune", ["prepare", "pretrain"]),
        ("classifier", ["prepare", "pretrain", "finetune"]),
    ):
        other = study_of(tmp_path, **{key: "changed"})
        stages = ("prepare", "pretrain", "finetune")
        assert [each for each in stages if other.folder(each) == study.folder(each)] == kept


@pytest.mark.slow
def test_all_stages_run_on_synthetic_reviews(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module: Any = import_module("imdb_ulmfit")

    def run(*arguments: str) -> Any:
        module.main([*arguments, "--smoke", "--work", str(tmp_path)])
        lines = capsys.readouterr().out.splitlines()
        return json.loads(lines[-1]) if lines else None

    with pytest.raises(SystemExit, match=r"imdb_ulmfit\.py prepare first"):
        run("pretrain")
    assert run("prepare")["near_duplicates_of_scored_reviews_in_train"] == 0
    with pytest.raises(SystemExit, match=r"imdb_ulmfit\.py pretrain first"):
        run("finetune")
    before = run("pretrain")
    tuned = run("finetune")
    assert before["valid_word_perplexity"] < before["valid_word_perplexity_before"]
    assert tuned["valid_word_perplexity"] < tuned["valid_word_perplexity_before"]
    assert run("try", "--labels", "20", "--set", "lr=0.02")["settings"]["lr"] == 0.02
    for labels in ("20", "40", "all"):
        run("classify", "--labels", labels)
    results = tmp_path / "smoke" / "results"
    looks = [json.loads(line) for line in (results / "looks.jsonl").read_text().splitlines()]
    keys = [(entry["labels"], entry["net"], entry["seed"]) for entry in looks]
    nets = [(net, seed) for net in ("ulmfit", "scratch") for seed in (0, 1)]
    both = [(labels, *each) for labels in ("20", "40") for each in nets]
    assert keys == [*both, ("all", "ulmfit", 0)]
    for entry in looks:
        # Tiny networks, trained for few steps: their accuracy may be anything.
        assert 0.0 <= entry["accuracy"] <= 1.0
        assert np.isfinite(entry["loss"])
        assert entry.get("tfidf", 1.0) > 0.9
        assert ("nb_svm" in entry) == ("tfidf" in entry) == (entry["net"] == "ulmfit")
    run("classify", "--labels", "20")  # from the log
    assert len((results / "looks.jsonl").read_text().splitlines()) == len(looks)
    run("report")
    page = (results / "ulmfit.md").read_text()
    assert "| 20 | " in page
    assert "| all | " in page
    assert (results / "ulmfit.svg").exists()


def test_the_gain_has_an_interval_over_the_seeds() -> None:
    module = import_module("imdb_ulmfit_report")
    score = {"seconds": 60.0, "when": "now", "commit": "abc", "version": "b", "labels": "200"}
    looks = [
        {**score, "net": net, "seed": seed, "accuracy": value, "train_reviews": 200, **more}
        for net, values, more in (
            ("ulmfit", (0.82, 0.84, 0.86), {"tfidf": 0.77, "nb_svm": 0.78}),
            ("scratch", (0.70, 0.70, 0.70), {}),
        )
        for seed, value in enumerate(values)
    ]
    old = {**looks[0], "version": "a", "accuracy": 0.1}
    kept = module.last_version([old, *looks])
    # 0.14 ± 4.30 × 0.02 / √3
    row = module.table(kept).splitlines()[-1]
    assert row == (
        "| 200 | 0.840 ± 0.020 | 0.700 ± 0.000 | +0.140 | +0.090 to +0.190 | 0.770 ± 0.000 "
        "| 0.780 ± 0.000 | 1.0 min |"
    )
