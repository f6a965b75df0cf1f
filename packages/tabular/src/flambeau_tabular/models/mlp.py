"""``TabularMLP``: the multilayer perceptron of RealMLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from flambeau.errors import InputError
from flambeau_tabular.models.ntk import ActivationName, InputScale, NTKLinear, ParametricActivation
from flambeau_tabular.models.table_inputs import InputOptions, Kinds, TableInputs

SCALE_FACTOR = 6.0
SMALL_FACTOR = 0.1


class TabularMLP(nn.Module):
    """A multilayer perceptron for tables in the manner of RealMLP-TD.

    Embedded inputs, a learned scale for each input, hidden layers in the NTK parameterisation with
    parametric activations and dropout, and a last layer that is 0 at first.

    Args:
        inputs: Turns a row into a vector.
        n_outputs: Number of outputs.
        hidden: Widths of the hidden layers.
        activation: "selu", which the authors use for classes, "mish" for numbers, or "relu".
        dropout: Dropout probability of the hidden units.

    Raises:
        InputError: A width is not positive, or ``dropout`` is out of range.

    Source:
        Holzmüller et al., "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular
        Data", 2024 (arXiv 2407.04491), and the defaults of the authors' package pytabkit 1.7.
        Differences: weights and biases are drawn as in the simple variant RealMLP-TD-S (standard
        normal, last layer 0), and not fitted to the train data ("std", "he+5"), because a model is
        rebuilt from its arguments alone. Flags for missing values are inputs, and an unknown
        category has an element of its own in one-hot columns. Categories have embeddings of the
        width of ``embedding_width`` (theirs 8). Outputs are not clamped to the range of the
        targets. Weight decay does not apply to the activations and the biases of embeddings.
    """

    def __init__(
        self,
        inputs: TableInputs,
        n_outputs: int,
        *,
        hidden: Sequence[int] = (256, 256, 256),
        activation: ActivationName = "selu",
        dropout: float = 0.15,
    ) -> None:
        super().__init__()
        widths = [inputs.width, *hidden]
        if min([*widths, n_outputs]) < 1:
            raise InputError(
                f"The widths of the MLP are {widths} and {n_outputs} outputs, but must be positive."
            )
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}, but must be at least 0 and below 1.")
        self.inputs = inputs
        self.scale = InputScale(inputs.width)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [NTKLinear(before, after), ParametricActivation(after, activation)]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*layers)
        self.head = NTKLinear(widths[-1], n_outputs, zero=True)

    def forward(
        self, numbers: Tensor, flags: Tensor, categories: Tensor, tokens: Tensor | None = None
    ) -> Tensor:
        """Return outputs ``(batch, n_outputs)``; for the arguments see ``TableInputs.forward``."""
        rows = self.inputs(numbers, flags, categories, tokens)
        return self.head(self.body(self.scale(rows)))

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups, from input to output."""
        return {"inputs": [self.inputs, self.scale], "body": [self.body], "head": [self.head]}

    def lr_factors(self) -> Mapping[str, float]:
        """Return the factors on the learning rate: 6 for the input scale, 0.1 for biases.

        0.1 also for activations, number embeddings and token vectors, whose weights are not of the
        size 1.
        """
        factors: dict[str, float] = {}
        for module_name, module in self.named_modules():
            for name, _ in module.named_parameters(recurse=False):
                is_small = isinstance(module, ParametricActivation) or (
                    isinstance(module, NTKLinear) and name == "bias"
                )
                path = f"{module_name}.{name}"
                if path.startswith(("inputs.numbers.", "inputs.text.")) or is_small:
                    factors[path] = SMALL_FACTOR
                elif isinstance(module, InputScale):
                    factors[path] = SCALE_FACTOR
        return factors


def mlp(
    *,
    inputs: Mapping[str, Any],
    n_outputs: int,
    kind: Kinds = "regression",
    hidden: Sequence[int] = (256, 256, 256),
    activation: ActivationName | None = None,
    dropout: float = 0.15,
) -> TabularMLP:
    """Return a ``TabularMLP`` from JSON values.

    Args:
        inputs: The columns and their embeddings, by the names of ``InputOptions``; numbers have
            "pbld" embeddings by default, as in RealMLP.
        n_outputs: Number of outputs.
        kind: Kind of the task (``Task.kind``), or kinds and widths of several tasks: decides the
            activation if that is None.
        hidden: Widths of the hidden layers.
        activation: "selu", "mish" or "relu"; None is "selu" if all outputs are those of
            "classification" or "multi_label", else "mish".
        dropout: Dropout probability of the hidden units.

    Example:
        >>> import torch
        >>> columns = {"n_numbers": 2, "cardinalities": [5]}
        >>> model = mlp(inputs=columns, n_outputs=3, kind="classification")
        >>> rows = torch.zeros(4, 2), torch.zeros(4, 0), torch.zeros(4, 1, dtype=torch.uint8)
        >>> model(*rows).shape
        torch.Size([4, 3])
    """
    kinds = [kind] if isinstance(kind, str) else [name for name, _ in kind]
    of_classes = all(each in ("classification", "multi_label") for each in kinds)
    return TabularMLP(
        TableInputs(InputOptions.of({"number_embedding": "pbld", **inputs})),
        n_outputs,
        hidden=hidden,
        activation=activation or ("selu" if of_classes else "mish"),
        dropout=dropout,
    )
