"""The report of a language model: an n-gram model beside it, and generated text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from flambeau import Learner
from flambeau.report.blocks import Table
from flambeau_text import (
    CausalLM,
    InstructionData,
    InstructionOptions,
    KneserNey,
    LanguageModelData,
    LanguageOptions,
)
from flambeau_text.language.report import first_words, generated_section

NAMES, SEEN = ("Ann", "Bob", "Eve", "Kim"), ("a dog", "a cat", "a hen", "an owl")
TEXTS = [f"{a} sees {b} now.\n{b} sees {a}.\n" for a in NAMES for b in SEEN]


def test_the_page_has_an_ngram_model_and_generated_text(tmp_path: Path) -> None:
    data = LanguageModelData.from_texts(
        TEXTS, valid=4, options=LanguageOptions(tokenizer="character")
    )
    sizes = {"embedding_dim": 8, "hidden_size": 12, "num_layers": 1}
    learner = Learner(data, seed=0, choices={"model_config": sizes}, quiet=True)
    learner.fit(1)
    found = learner.interpret("valid")
    [scores] = found.baselines.values()
    letters: Any = learner.built.preprocessor.tokenizer  # type: ignore[attr-defined]

    def ids(texts: list[str]) -> list[int]:
        lines = [line for text in texts for line in text.splitlines()]
        return [each for line in lines for each in (*letters.encode(line), 3)]

    valid = data.raw("valid")
    wanted = KneserNey(5).fit(ids(data.raw("train")), len(letters)).perplexity(ids(valid))
    assert scores["perplexity"] == pytest.approx(wanted, rel=1e-12)
    total = math.log(wanted) * len(ids(valid))
    assert scores["loss"] == pytest.approx(math.log(wanted), rel=1e-12)
    n_bytes, n_words = sum(map(len, valid)), sum(len(t.split()) + 2 for t in valid)
    assert scores["bits_per_byte"] == pytest.approx(total / math.log(2) / n_bytes, rel=1e-12)
    assert scores["word_perplexity"] == pytest.approx(math.exp(total / n_words), rel=1e-12)
    [section] = data.report_sections(found)
    table = section.blocks[1]
    assert isinstance(table, Table)
    prompts = [" ".join(text.split("\n")[0].split()[:5]) for text in valid]
    predictor = learner.predictor()
    predictor.task = predictor.task.for_prediction({"max_tokens": 40})
    assert [row[0] for row in table.rows] == list(dict.fromkeys(prompts))
    assert table.rows[0][1] == predictor.predict(prompts[0]).text
    page = found.report(tmp_path / "report.html").read_text()
    assert "5-gram (Kneser-Ney)" in page
    assert f"{len(found):,} valid chunk" in page
    assert f"{len(found):,} valid chunk" in str(found)
    assert "valid sample" not in str(found)
    assert "Generated text" in page
    assert learner.interpret("train").baselines == {}


def test_first_words_are_prompts() -> None:
    texts = [
        "\n one two three four five six\n",
        "one two three four five",
        "我喜欢这部电影因为它好看",
        "a",
    ]
    assert first_words(texts) == ["one two three four five", "我喜欢这部电影因为它", "a"]
    assert len(first_words([str(n) for n in range(9)])) == 4


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_the_page_of_a_pretrained_model_has_answers(pretrained: Any, tmp_path: Path) -> None:
    model = CausalLM.from_hf(pretrained.save_model(tmp_path / "m", "llama"))
    records = [{"prompt": f"{n} + 1", "completion": str(n + 1)} for n in range(6)]
    options = InstructionOptions(model.tokenizer)  # type: ignore[arg-type]
    data = InstructionData.from_records(records, options, valid=2)
    learner = Learner(data, model, choices={"row_length": 64}, quiet=True)
    found = learner.interpret("valid")
    assert found.baselines == {}
    [section] = data.report_sections(found)
    asked = [each["messages"][-1]["content"] for each in data.raw("valid")]
    assert [row[0] for row in section.blocks[1].rows] == asked  # type: ignore[attr-defined]
    refused = generated_section(found, ["x y z " * 60])
    assert refused is not None
    assert "Not generated: The prompt has" in refused.blocks[0].text  # type: ignore[attr-defined]
