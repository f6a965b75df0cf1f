"""Minimum-risk training: the risk against a slow loop, and that training lowers it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau_text import TranslationData, TranslationOptions
from flambeau_text.decoding import sequence_log_probabilities
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.minimum_risk import MinimumRisk, _is_repeated
from flambeau_text.translation.scores import sentence_bleu

CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 8, "num_threads": 1,
    "model_config": {"embedding_dim": 16, "hidden_size": 16, "dropout": 0.0},
}  # fmt: skip


def learner(**training: Any) -> Learner:
    torch.manual_seed(0)
    options = TrainingOptions(doctor=False, **training)
    return Learner(dates_data(60, 0), choices=CHOICES, training=options, quiet=True)


def test_the_risk_is_the_expected_error_of_the_candidates() -> None:
    run = learner()
    run.fit(1)
    model, task = run.model.double(), run.task
    data: Any = run.built.dataset("train")
    batch = data.batch(torch.tensor([3, 11]))
    rule = MinimumRisk(n_samples=5, alpha=0.05)
    found = rule.risk(model, batch, task, 0, 7)  # type: ignore[arg-type]
    candidates = rule._candidates(model, batch, 0, 7)  # type: ignore[arg-type]
    wanted = 0.0
    with torch.no_grad():
        for row in range(2):
            sentences = {tuple(t for t in each if t != 1) for each in candidates[row].tolist()}
            source = batch.inputs["source"][row : row + 1]
            memory = model.encode(source, batch.masks["source"][row : row + 1])  # type: ignore[operator]
            weights, losses = [], []
            for sentence in sentences:
                score = sequence_log_probabilities(model, memory, torch.tensor([list(sentence)]))  # type: ignore[arg-type]
                weights.append(float(score) * 0.05)
                text = task.target.decode(sentence)  # type: ignore[attr-defined]
                reference = batch.extras["reference"][row]
                losses.append(1 - sentence_bleu(text, reference) / 100)
            shares = torch.tensor(weights, dtype=torch.float64).softmax(0)
            wanted += float((shares * torch.tensor(losses, dtype=torch.float64)).sum())
    assert found.item() == pytest.approx(wanted, abs=1e-10)
    # The first candidate is the reference.
    assert candidates[:, 0].tolist() == [
        [*row[1:], *[1] * (candidates.shape[2] - len(row) + 1)]
        for row in batch.targets["target"].tolist()
    ]


def test_its_gradient_lowers_the_risk(monkeypatch: pytest.MonkeyPatch) -> None:
    run = learner()
    run.fit(1)
    data: Any = run.built.dataset("train")
    batch, model = data.batch(torch.arange(8)), run.model
    rule = MinimumRisk(n_samples=6, alpha=0.1)
    drawn = rule._candidates(model, batch, 5, 0)  # type: ignore[arg-type]
    monkeypatch.setattr(MinimumRisk, "_candidates", lambda *given: drawn)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    risks = []
    for _ in range(25):
        risk = rule.risk(model, batch, run.task, 5, 0)  # type: ignore[arg-type]
        risks.append(risk.item())
        risk.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert risks[-1] < 0.8 * risks[0]


def test_a_run_uses_it_as_its_step() -> None:
    run = learner(train_step=MinimumRisk(n_samples=3))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    history = run.fit(1)
    assert all(map(torch.isfinite, map(torch.tensor, history.step_losses)))
    assert any(not torch.equal(v, before[n]) for n, v in run.model.state_dict().items())


def test_with_likelihood_alone_it_is_the_usual_step() -> None:
    plain, mixed = learner(), learner(train_step=MinimumRisk(n_samples=1, likelihood_weight=1.0))
    for run in (plain, mixed):
        torch.manual_seed(0)
        run.fit(1)
    # The gradient of a quotient against a quotient of gradients, in float32.
    torch.testing.assert_close(
        list(plain.history.step_losses), list(mixed.history.step_losses), atol=1e-4, rtol=0
    )


def test_repeated_sentences_are_found() -> None:
    rows = torch.tensor([[[4, 3], [5, 3], [4, 3], [4, 3]]])
    assert _is_repeated(rows).tolist() == [[False, False, True, True]]


def test_invalid_settings_raise() -> None:
    with pytest.raises(InputError, match="n_samples must be a whole number"):
        MinimumRisk(n_samples=0)
    with pytest.raises(InputError, match="likelihood_weight between 0 and 1"):
        MinimumRisk(likelihood_weight=2.0)
    x = torch.randn(40, 2)
    run = Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True,
        training=TrainingOptions(train_step=MinimumRisk(), doctor=False),
    )  # fmt: skip
    with pytest.raises(ArgumentError, match="not MLP with Classification"):
        run.fit(1)


def test_every_step_draws_its_own_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    from flambeau_text.translation import minimum_risk

    seeds: list[int] = []
    real = minimum_risk.sample

    def sample(model: Any, memory: Any, limit: Any, sampling: Any, keys: Any) -> Any:
        seeds.append(sampling.seed)
        assert len(set(keys.tolist())) == len(keys)  # a draw of its own for each candidate
        return real(model, memory, limit, sampling, keys)

    monkeypatch.setattr(minimum_risk, "sample", sample)
    run = learner(train_step=MinimumRisk(n_samples=2))
    run.fit(2)
    assert len(seeds) > 2
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("lowercase", [True, False])
def test_candidates_are_compared_with_references_in_the_case_of_the_target(lowercase: bool) -> None:
    pairs = [(f"Word{n} A", f"Wort{n} EIN") for n in range(8)]
    data = TranslationData.from_pairs(pairs, options=TranslationOptions(lowercase=lowercase))
    run = Learner(data, choices=CHOICES, quiet=True)
    batch: Any = run.built.dataset("train").batch(torch.arange(2))
    compared: list[str] = []

    def quality(_: str, reference: str) -> float:
        compared.append(reference)
        return 50.0

    MinimumRisk(n_samples=2, quality=quality).risk(run.model, batch, run.task, 0, 1)  # type: ignore[arg-type]
    wanted = batch.extras["reference"]
    assert set(compared) == {text.lower() if lowercase else text for text in wanted}


def test_step_through_shows_the_losses_of_its_samples() -> None:
    stages = learner(train_step=MinimumRisk(n_samples=2)).step_through()
    [losses] = stages.of("loss per sample")
    assert losses.shape == (8,)
