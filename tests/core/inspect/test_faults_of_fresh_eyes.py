"""Ten faults in networks that were written after the thresholds, each beside its healthy twin.

The expected kind and layer were written down before the first run. ``NETS`` builds a network with
or without the fault; the rest of both is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau.inspect import inspect
from flambeau.inspect.watch.verdicts import Verdict

N_STEPS = 16
Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.manual_seed(1)
    yield
    torch.set_rng_state(before)


@dataclass
class Case:
    """A network, its batches and its optimizer (Adam with ``lr`` if there is none)."""

    model: nn.Module
    batch: Callable[[], Batch]
    lr: float = 2e-3
    optimizer: torch.optim.Optimizer | None = None


def images() -> Batch:
    """Stripes of ten widths and directions, ``(24, 1, 8, 8)``, with noise."""
    y = torch.randint(10, (24,))
    across = torch.arange(8.0)
    waves = torch.sin(across * (0.3 + 0.25 * (y % 5)).view(-1, 1))
    x = waves.unsqueeze(2).expand(-1, 8, 8)
    x = torch.where((y < 5).view(-1, 1, 1), x, x.transpose(1, 2))
    return x.unsqueeze(1) + 0.3 * torch.randn(24, 1, 8, 8), y


def table() -> Batch:
    x = torch.randn(64, 30)
    return x, (x[:, 0] * x[:, 1] + x[:, 2] > 0).long()


def characters() -> Batch:
    """Runs through an alphabet of 30 letters with several step widths."""
    start, step = torch.randint(30, (2, 12, 1))
    x = (start + (1 + step % 4) * torch.arange(25)) % 30
    return x[:, :-1], x[:, 1:]


class Stages(nn.Module):
    """A network of convolutions without normalisation."""

    def __init__(self, *, detach: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.late = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(16, 10)
        self.detach = detach

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.middle(x.detach() if self.detach else x)
        return self.head(self.late(x).mean((2, 3)))


class Residual(nn.Module):
    """Residual blocks of linear layers for tables."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.out = nn.Linear(30, 32), nn.Linear(32, 2)
        self.a = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.b = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        for a, b in zip(self.a, self.b, strict=True):
            x = x + b(F.relu(a(x)))
        return self.out(x)


class Encoder(nn.Module):
    """torch's own Transformer layers on characters."""

    def __init__(self, rows: int = 30, *, wrong_mask: bool = False) -> None:
        super().__init__()
        self.tok = nn.Embedding(rows, 32)
        self.pos = nn.Parameter(torch.randn(24, 32) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 30)
        self.wrong_mask = wrong_mask

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok(tokens) + self.pos
        hidden = torch.ones(24, 24, dtype=torch.bool).triu(1)  # positions that are not attended to
        wrong = torch.arange(24) > 0
        for number, layer in enumerate(self.layers):
            padding = wrong.expand(len(x), 24) if self.wrong_mask and number == 1 else None
            x = layer(
                x, src_mask=None if padding is not None else hidden, src_key_padding_mask=padding
            )
        return self.head(self.norm(x)).transpose(1, 2)


class Gated(nn.Module):
    """A recurrent cell with one gate, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.update, self.new = nn.Linear(32, 16), nn.Linear(32, 16)
        self.head = nn.Linear(16, 30)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens[:, :8])
        h, found = x.new_zeros(len(x), 16), []
        for position in range(8):
            both = torch.cat([x[:, position], h], dim=1)
            z = torch.sigmoid(self.update(both))
            h = (1 - z) * h + z * torch.tanh(self.new(both))
            found.append(self.head(h))
        return torch.stack(found, dim=2)


class LastOf(nn.Module):
    """A recurrent network of torch whose last position alone is used."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, 24, nonlinearity="relu", batch_first=True)
        self.rnn.weight_hh_l0.data = torch.eye(24) * factor
        self.head = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.unsqueeze(2))[0][:, -1])


class PatchAttention(nn.Module):
    """``softmax(q kᵀ + bias) v`` over 16 patches, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 2, 2)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(16))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 32**0.5 + self.bias
        return self.head((x + F.softmax(scores, -1) @ self.v(x)).mean(1))


class Scaled(nn.Module):
    """A constant factor, such as a wrong temperature."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def dead_in_the_middle(faulty: bool) -> Case:
    model = Stages()
    if faulty:
        model.middle[0].bias.data[:12] = -30.0  # type: ignore[operator]
    return Case(model, images)


def dead_function_in_a_residual_block(faulty: bool) -> Case:
    model = Residual()
    if faulty:
        model.a[1].bias.data[:20] = -25.0  # type: ignore[operator]
    return Case(model, table)


def exploding_recurrence(faulty: bool) -> Case:
    def batch() -> Batch:
        x, y = table()
        return x[:, :29], y  # statistics of outputs are those of every second position, without 28

    return Case(LastOf(1.6 if faulty else 0.9), batch)


def vanishing_in_a_stack_of_sigmoids(faulty: bool) -> Case:
    layers: list[nn.Module] = []
    for number in range(9):
        layers += [nn.Linear(32 if number else 30, 32), nn.Sigmoid() if faulty else nn.ReLU()]
        if not faulty:
            nn.init.kaiming_normal_(layers[-2].weight)  # type: ignore[arg-type]
    return Case(nn.Sequential(*layers, nn.Linear(32, 2)), table, lr=1e-3)


def vanishing_at_a_wrong_factor(faulty: bool) -> Case:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        Scaled(1e-6 if faulty else 1.0),
        nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    return Case(model, images)


def frozen_by_detach(faulty: bool) -> Case:
    return Case(Stages(detach=faulty), images)


def frozen_head_of_a_later_line(faulty: bool) -> Case:
    model = Stages()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if faulty:
        model.head = nn.Linear(16, 10)
    return Case(model, images, optimizer=optimizer)


def saturated_gate(faulty: bool) -> Case:
    model = Gated()
    if faulty:
        model.update.bias.data.fill_(25.0)

    def batch() -> Batch:
        x, y = characters()
        return x, y[:, :8]

    return Case(model, batch)


def duplicated_filters(faulty: bool) -> Case:
    """Two filters start equal, and so do the weights that read them: they stay equal."""
    model = Stages()
    if faulty:
        filters, readers = model.middle[0], model.late[0]
        filters.weight.data[11] = filters.weight.data[3]  # type: ignore[index, operator]
        filters.bias.data[11] = filters.bias.data[3]  # type: ignore[index, operator]
        readers.weight.data[:, 11] = readers.weight.data[:, 3]  # type: ignore[index, operator]
    return Case(model, images)


def unused_rows(faulty: bool) -> Case:
    return Case(Encoder(8_000 if faulty else 30), characters)


def inputs_without_normalisation(faulty: bool) -> Case:
    """Temperatures in kelvin."""

    def batch() -> Batch:
        x, y = table()
        return (290 + 8 * x if faulty else x), y

    return Case(nn.Sequential(nn.Linear(30, 48), nn.ELU(), nn.Linear(48, 2)), batch, lr=1e-3)


def depth_without_normalisation(faulty: bool) -> Case:
    def block(size: int) -> nn.Module:
        norm = nn.Identity() if faulty else nn.BatchNorm2d(16)
        return nn.Sequential(nn.Conv2d(size, 16, 3, padding=1), norm, nn.ReLU())

    blocks = [block(16 if number else 1) for number in range(14)]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return Case(model, images)


def learning_rate_of_one_group(faulty: bool) -> Case:
    model = Stages()
    others = [p for name, p in model.named_parameters() if not name.startswith("late")]
    late = {"params": list(model.late.parameters()), "lr": 0.2 if faulty else 2e-3}
    return Case(model, images, optimizer=torch.optim.AdamW([{"params": others}, late], lr=2e-3))


def attention_written_by_hand(faulty: bool) -> Case:
    model = PatchAttention()
    if faulty:
        model.bias.data[0] = 30.0
    return Case(model, images)


def attention_with_a_wrong_mask(faulty: bool) -> Case:
    """A mask that leaves one position to all queries, in the second layer alone."""
    return Case(Encoder(wrong_mask=faulty), characters)


NETS: Mapping[str, tuple[Callable[[bool], Case], str, str]] = {
    each.__name__: (each, kind, layer)
    for each, kind, layer in (
        (dead_in_the_middle, "dead", "middle.1"),
        (dead_function_in_a_residual_block, "dead", "relu after a.1"),
        (exploding_recurrence, "exploding", "rnn"),
        (vanishing_in_a_stack_of_sigmoids, "vanishing", "0"),
        (vanishing_at_a_wrong_factor, "vanishing", "0"),
        (frozen_by_detach, "frozen", "stem.0"),
        (frozen_head_of_a_later_line, "frozen", "head"),
        (saturated_gate, "saturated", "sigmoid after update"),
        (duplicated_filters, "duplicated", "middle.0"),
        (unused_rows, "unused rows", "tok"),
        (inputs_without_normalisation, "input scale", "(input)"),
        (depth_without_normalisation, "lost signal", ""),  # in the layer where it falls below
        (learning_rate_of_one_group, "large updates", "late.0"),
        (attention_written_by_hand, "one position", "softmax in "),
        (attention_with_a_wrong_mask, "one position", "attention in layers.1.self_attn"),
    )
}
"""Builder, kind and layer (or the beginning of its name) of each fault."""


def verdicts(case: Case) -> list[Verdict]:
    optimizer = case.optimizer or torch.optim.Adam(case.model.parameters(), lr=case.lr)
    with inspect(case.model) as watch:
        for _ in range(N_STEPS):
            x, y = case.batch()
            F.cross_entropy(case.model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert watch.record.notes == []
    return watch.verdicts()


@pytest.mark.parametrize("name", NETS)
def test_the_fault_is_named_with_its_layer(name: str) -> None:
    make, kind, layer = NETS[name]
    found = verdicts(make(True))
    assert any(v.kind == kind and v.layer.startswith(layer) for v in found), list(map(str, found))
    if name == "vanishing_at_a_wrong_factor":
        [verdict] = [v for v in found if v.kind == "vanishing"]
        assert "most of it is lost in layer 4 (3)" in verdict.text
    if name == "vanishing_in_a_stack_of_sigmoids":
        [verdict] = [v for v in found if v.kind == "vanishing"]
        assert "each layer after it loses a part" in verdict.text
    if name in ("saturated_gate", "exploding_recurrence", "unused_rows"):
        assert len(found) == 1, list(map(str, found))


@pytest.mark.parametrize("name", NETS)
def test_the_same_network_without_the_fault_has_no_verdict(name: str) -> None:
    assert list(map(str, verdicts(NETS[name][0](False)))) == []
