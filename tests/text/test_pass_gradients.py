"""Several passes over a sentence have the gradients of the same computation token by token."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flambeau_text.forcing import TeacherForcing
from flambeau_text.forcing.decoder_inputs import DrawKeys
from flambeau_text.forcing.unroll import decoder_features
from flambeau_text.models import Seq2Seq

LENGTHS, TARGETS = [5, 3, 4], [6, 4, 5]


def loss(
    model: Seq2Seq, small: SimpleNamespace, forcing: TeacherForcing, rows: slice = slice(None)
) -> torch.Tensor:
    """Return the summed log-likelihood of the targets, half of whose inputs are predictions."""
    source, mask = small.sources(LENGTHS)
    target = small.targets(TARGETS)[rows]
    keys = DrawKeys(0, 0, torch.arange(len(LENGTHS))[rows])
    memory = model.encode(source[rows], mask[rows])
    features = decoder_features(model, memory, target[:, :-1], 0.5, forcing, keys)
    found = model.output(features).log_softmax(-1).gather(2, target[:, 1:].unsqueeze(2))
    return found.masked_fill(target[:, 1:].unsqueeze(2) == 1, 0.0).sum()


def gradients(
    model: Seq2Seq, small: SimpleNamespace, forcing: TeacherForcing, rows: slice = slice(None)
) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss(model, small, forcing, rows).backward()
    named = model.named_parameters()
    return {name: value.grad.clone() for name, value in named if value.grad is not None}


def in_passes(feed: str) -> TeacherForcing:
    return TeacherForcing(feed=feed, passes=max(TARGETS))  # type: ignore[arg-type]


@pytest.mark.parametrize("feed", ["argmax", "sample", "gumbel", "soft"])
def test_every_model_has_the_gradient_of_token_by_token(
    model: Seq2Seq, small: SimpleNamespace, feed: str
) -> None:
    found = gradients(model, small, in_passes(feed))
    model.teacher_forcing_passes = None
    by_token = gradients(model, small, TeacherForcing(feed=feed))  # type: ignore[arg-type]
    assert found.keys() == by_token.keys()
    for name, value in by_token.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("feed", ["argmax", "sample", "soft"])
@pytest.mark.parametrize("kind", ["post-norm", "gru"])
def test_gradients_of_passes_equal_finite_differences(
    small: SimpleNamespace, kind: str, feed: str
) -> None:
    model = small.make(kind, scale=2.0)
    found = gradients(model, small, in_passes(feed))
    step = 1e-6
    for name, parameter in list(model.named_parameters())[::5]:
        if name not in found:
            continue
        entry, index = parameter.data.view(-1), int(found[name].abs().argmax())
        ends = []
        for sign in (1, -1):
            entry[index] += sign * step
            with torch.no_grad():
                ends.append(float(loss(model, small, in_passes(feed))))
            entry[index] -= sign * step
        # Central differences in float64: an error of step² and of 1e-16/step.
        expected = (ends[0] - ends[1]) / (2 * step)
        assert float(found[name].view(-1)[index]) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("feed", ["argmax", "gumbel", "soft"])
def test_gradients_of_a_batch_are_the_sum_of_its_sentences(
    small: SimpleNamespace, feed: str
) -> None:
    model = small.make("pre-norm", scale=2.0)
    together = gradients(model, small, in_passes(feed))
    alone = [gradients(model, small, in_passes(feed), slice(row, row + 1)) for row in range(3)]
    for name, value in together.items():
        torch.testing.assert_close(sum(each[name] for each in alone), value, rtol=1e-9, atol=1e-9)
