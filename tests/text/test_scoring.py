"""Scores and embeddings of texts, and texts that are generated piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from flambeau import Learner, Predictor
from flambeau.artefact.streaming import stream_text
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, InputError
from flambeau_text import (
    CausalLM,
    LanguageModelData,
    LanguageOptions,
    Sampling,
    embed_texts,
    score_texts,
)
from flambeau_text.language import scoring
from flambeau_text.language.stream import TOKENS

TEXTS = [f"{'abcde'[at % 3 :]} é {at % 7}\n" * (1 + at % 2) for at in range(24)]
SMALL: dict[str, Any] = {
    "awd_lstm": {"embedding_dim": 8, "hidden_size": 12, "num_layers": 2},
    "decoder": {"depth": 1, "window": 16},
}


def learner(architecture: str) -> Learner:
    torch.manual_seed(0)
    data = LanguageModelData.from_texts(
        TEXTS, valid=TEXTS[:5], options=LanguageOptions(tokenizer="character")
    )
    choices = {"model_config": SMALL[architecture], "batch_size": 4, "keep_best": None}
    found = Learner(data, architecture, seed=0, quiet=True, choices=choices)
    found.fit(1)
    return found


@pytest.fixture(scope="module", params=list(SMALL))
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return learner(request.param).predictor()


@pytest.mark.parametrize("chunk", [3, 256])
def test_scores_equal_one_pass(
    predictor: Predictor, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_CHUNK", chunk)
    model, tokenizer = predictor.model.eval(), predictor.preprocessor.tokenizer  # type: ignore[attr-defined]
    for text, found in zip(TEXTS[:3], score_texts(predictor, TEXTS[:3]), strict=True):
        ids = [each for line in text.splitlines() for each in (*tokenizer.encode(line), 3)]
        with torch.no_grad():
            logits, _ = model(torch.tensor([[3, *ids[:-1]]]))
        wanted = logits[0].log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
        torch.testing.assert_close(torch.tensor(found.log_probs), wanted, rtol=0, atol=1e-5)
        assert found.tokens == tuple(tokenizer.ids_to_tokens(ids))
        assert found.log_prob == pytest.approx(float(wanted.sum()), abs=1e-4)


def test_embeddings_are_features_of_the_tokens(predictor: Predictor) -> None:
    found = embed_texts(predictor, TEXTS[:3])
    last = embed_texts(predictor, TEXTS[:3], "last")
    encoded = predictor.preprocessor.encode([TEXTS[0]]).inputs[TOKENS]
    with torch.no_grad():
        features = predictor.model.eval().features(encoded[:, :-1]).features[0]  # type: ignore[operator]
    torch.testing.assert_close(found[0], features.mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(last[0], features[-1], rtol=0, atol=1e-5)
    assert found.shape == last.shape
    with pytest.raises(ArgumentError, match='"mean" or "last"'):
        embed_texts(predictor, TEXTS, "first")  # type: ignore[arg-type]


def test_other_predictors_and_single_texts_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ArgumentError, match="a single text"):
        score_texts(predictor, "abc")
    with pytest.raises(ArgumentError, match=r"learner\.predictor\(\)"):
        score_texts(learner, ["abc"])  # type: ignore[arg-type]


def test_pretrained_models_score_and_embed(pretrained: Any, tmp_path: Path) -> None:
    import transformers

    folder = pretrained.save_model(tmp_path / "model", "llama")
    model = CausalLM.from_hf(folder)
    data = LanguageModelData.from_texts(
        pretrained.TEXTS, valid=3, options=LanguageOptions(tokenizer=model.tokenizer)
    )
    of = Learner(data, model, quiet=True).predictor()
    other = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    for text, found in zip(
        pretrained.TEXTS[:2], score_texts(of, pretrained.TEXTS[:2]), strict=True
    ):
        special = model.tokenizer.special  # type: ignore[union-attr]
        ids = torch.tensor([[special.start, *model.tokenizer.encode(text), special.end]])  # type: ignore[union-attr]
        with torch.no_grad():
            logits = other(input_ids=ids).logits[0, :-1].log_softmax(-1)
        wanted = logits.gather(1, ids[0, 1:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(found.log_probs), wanted, rtol=0, atol=1e-5)
    assert embed_texts(of, pretrained.TEXTS[:2]).shape == (2, 32)
    with pytest.raises(InputError, match="128 positions"):
        score_texts(of, ["a b c d e f g h " * 40])


# ---------------------------------------------------------------- streaming


@pytest.mark.parametrize("stop", [None, "a", "\n", "e "])
def test_the_pieces_are_the_prediction(predictor: Predictor, stop: str | None) -> None:
    before = predictor.task
    options = {"max_tokens": 30, "temperature": 1.5, "stop": stop}
    predictor.task = before.for_prediction(options)
    try:
        for prompt in ("abc", "", "ab\n", "b é"):
            pieces = list(stream_text(predictor, prompt))
            whole = predictor.predict(prompt).text
            assert "".join(pieces) == whole
            assert stop is None or stop not in whole
            assert len(pieces) > 3 or len(whole) < 4
    finally:
        predictor.task = before


def test_no_piece_shows_the_start_of_a_text_that_ends_it(predictor: Predictor) -> None:
    before = predictor.task
    try:
        predictor.task = before.for_prediction({"max_tokens": 20, "temperature": 0})
        free = predictor.predict("ab").text
        assert len(free) >= 20
        for begin in range(4):
            for end in range(begin + 1, begin + 8):
                stop = free[begin:end]
                predictor.task = before.for_prediction(
                    {"max_tokens": 20, "temperature": 0, "stop": stop}
                )
                wanted = free[: free.index(stop)]
                assert "".join(stream_text(predictor, "ab")) == wanted, stop
                assert predictor.predict("ab").text == wanted
        first = min(free[3:6], free[9:12], key=free.index)
        predictor.task = before.for_prediction(
            {"max_tokens": 20, "temperature": 0, "stop": [free[9:12], free[3:6]]}
        )
        assert predictor.predict("ab").text == free[: free.index(first)]
    finally:
        predictor.task = before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"stop": ""}, InputError, "stop must be a list of texts that are not empty"),
        ({"stop": ["a", 3]}, InputError, "stop must be"),
        ({"max_tokens": 0}, InputError, "max_tokens must be"),
        ({"max_token": 3}, ArgumentError, "no option 'max_token'.*Did you mean 'max_tokens'"),
        ({"interval": 0.9}, ArgumentError, "no option 'interval'"),
    ],
)
def test_bad_options_of_generation_are_named(
    predictor: Predictor, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        predictor.task.for_prediction(options)


def test_prompts_come_from_tables_and_files(predictor: Predictor, tmp_path: Path) -> None:
    wanted = predictor.predict(["ab", "cd"])
    for given in ([{"prompt": "ab", "n": 1}, {"prompt": "cd", "n": 2}], [{"a": "ab"}, {"b": "cd"}]):
        assert predictor.predict(given) == wanted
    (tmp_path / "p.csv").write_text("id,prompt\n1,ab\n2,cd\n")
    (tmp_path / "p.jsonl").write_text('{"text": "ab"}\n{"text": "cd"}\n')
    (tmp_path / "p.txt").write_text("ab\ncd\n")
    for name in ("p.csv", "p.jsonl", "p.txt"):
        found = LanguageModelData.inputs_from_path(tmp_path / name)
        assert predictor.predict(list(found)) == wanted, name
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("ab\n")
    assert predictor.predict(LanguageModelData.inputs_from_path(tmp_path / "one")) == wanted[:1]
    with pytest.raises(InputError, match="Item 0: none of the fields x, y is named 'prompt'"):
        predictor.predict([{"x": "ab", "y": "cd"}])


@pytest.mark.parametrize("texts", [["ab", None], ["ab", 3], ["ab", "c\0d"], ["ab", "\ud800"]])
def test_texts_that_are_none_are_not_scored(predictor: Predictor, texts: list[Any]) -> None:
    for call in (score_texts, embed_texts):
        with pytest.raises(InputError, match="Text 1"):
            call(predictor, texts)
        with pytest.raises(InputError, match="dict with the names 'a'"):
            call(predictor, {"a": "b"})  # type: ignore[arg-type]


def test_bytes_of_one_character_come_together(pretrained: Any) -> None:
    from flambeau_text import HFTokenizer, LanguageModelTask

    tokenizer = HFTokenizer.of(pretrained.tokenizer())
    ids = tokenizer.encode("é日")
    assert len(ids) == 5

    class Fixed(torch.nn.Module):
        pass

    task = LanguageModelTask(tokenizer=tokenizer)
    shown = [task.continuation(tokenizer.special.start, ids[: n + 1]) for n in range(5)]
    assert shown == ["\ufffd", "é", "é\ufffd", "é\ufffd", "é日"]


def call(*words: object) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_command_line_prints_a_continuation(tmp_path: Path) -> None:
    of = learner("decoder")
    path = of.export(tmp_path / "model")
    loaded = Predictor.load(path)
    loaded.task = loaded.task.for_prediction({"max_tokens": 12, "seed": 4})
    wanted = loaded.predict("ab")
    words = ("predict", path, "--prompt", "ab", "--max-tokens", 12, "--seed", 4)
    assert call(*words) == f"{wanted.text}\n"
    assert wanted.text in call(*words, "--format", "csv")
    with pytest.raises(ArgumentError, match="--prompt is the input"):
        call(*words, tmp_path)
    assert isinstance(of.task.decoding, Sampling)  # type: ignore[attr-defined]
