"""What went wrong in a step, in words: torch's errors with layer, cause and mend."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.device import has_fast_bf16, is_out_of_memory
from flambeau.errors import (
    ArgumentError,
    FlambeauError,
    InputError,
    OutOfMemoryError,
    TrainingError,
)
from flambeau.task.task import Task

if TYPE_CHECKING:
    from flambeau.training.state import TrainState

_ONE_VALUE = "Expected more than 1 value per channel when training"
_DTYPE = re.compile(
    r"same dtype|expected scalar type|type .* should be the same|not implemented for '\w+'"
)
_SHAPE = re.compile(
    r"cannot be multiplied|size mismatch|shape mismatch|must match the size|[Ee]xpected .*\d-?D|"
    r"expected input.* channels|invalid for input of size|[Kk]ernel size can't be|Given input size|"
    r"Given normalized_shape|[Ii]nput\.size\(-1\) must be equal|same number of dimensions"
)
_SAMPLES = 5


def explain(error: Exception, batches: Sequence[Batch], state: TrainState) -> Exception:
    """The error of a step as one of flambeau's, where it is known what it means, else as it is.

    What the step left is cleared away: its gradients, and where memory ran out, what the frames
    of the traceback still hold.

    Args:
        error: What ``train_step`` raised.
        batches: What it was called with, on the device.
        state: Of the run.
    """
    for parameter in state.model.parameters():
        parameter.grad = None
    if isinstance(error, FlambeauError):
        return error
    if is_out_of_memory(error):
        return _out_of_memory(error, batches, state)
    where = _layer(error, state.model)
    for look in (_single_sample, _wrong_call, _wrong_label, _wrong_index, _wrong_kind):
        found = look(error, where, batches, state)
        if found is not None:
            return found
    return error


@contextmanager
def explained_evaluation(state: TrainState) -> Generator[None]:
    """Around an evaluation: where memory runs out, an error that says what to do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FlambeauError) or not is_out_of_memory(error):
            raise
        _release(error, state)
        raise OutOfMemoryError(
            f"Memory ran out on {state.device} in the evaluation after training step "
            f"{state.position.step}: {_first_line(error)}. The weights are those of that step. "
            'Take a smaller batch, choices={"batch_size": …}, which evaluation uses too.'
        ) from error


def _out_of_memory(
    error: Exception, batches: Sequence[Batch], state: TrainState
) -> OutOfMemoryError:
    sizes = [len(batch) for batch in batches]
    largest, parts = max(sizes, default=0), len(sizes)
    in_parts = f" in {parts} micro-batches" if parts > 1 else ""
    if largest > 1:
        mend = (
            f'Take smaller batches with the same step: choices={{"batch_size": '
            f'{(largest + 1) // 2}, "accumulate": {2 * parts}}} (a loader of your own is built '
            "with that batch_size)"
        )
    else:
        mend = "One sample is too much already: take smaller inputs, or a smaller model"
    if _is_fp32(state) and has_fast_bf16(state.device):
        mend += ', or choices={"precision": "bf16"}, which halves what the forward pass keeps'
    _release(error, state)
    return OutOfMemoryError(
        f"Memory ran out on {state.device} in training step {state.position.step}, on a batch of "
        f"{sum(sizes)} samples{in_parts}: {_first_line(error)}. The weights are those before the "
        f"step. {mend}, or freeze part of the model (learner.freeze())."
    )


def _release(error: BaseException, state: TrainState) -> None:
    """Lets go of the tensors that the step's frames hold, so that a smaller one has room."""
    state.context.carry = None
    traceback.clear_frames(error.__traceback__)
    if state.device.type == "cuda":
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _is_fp32(state: TrainState) -> bool:
    return not torch.is_autocast_enabled(state.device.type) and all(
        value.dtype == torch.float32 for value in state.model.parameters()
    )


# ---------------------------------------------------------------- what is known of an error


def _single_sample(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    if _ONE_VALUE not in str(error):
        return None
    sizes = ", ".join(str(len(batch)) for batch in batches)
    return InputError(
        f"Batch norm cannot take statistics of a single value: {where or 'the model'} got one for "
        f"each channel, from a batch of {sizes}. Take a batch_size of at least 2 and leave out a "
        "last batch of one (DataLoader(…, drop_last=True)); or keep the statistics as they are, "
        'choices={"bn": "eval"}; or use a norm without them (nn.LayerNorm, nn.GroupNorm).'
    )


def _wrong_call(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    kind = type(state.model).__name__
    if isinstance(error, NotImplementedError) and 'required "forward"' in str(error):
        return ArgumentError(f"{kind} has no forward. Define it: def forward(self, x).")
    if not isinstance(error, TypeError) or type(state.task).forward is not Task.forward:
        return None
    inputs = batches[0].inputs
    signature = inspect.signature(state.model.forward)
    try:
        signature.bind(*inputs.values())
    except TypeError:
        return ArgumentError(
            f"{kind}.forward takes {signature}, but the data give {len(inputs)} input"
            f"{'' if len(inputs) == 1 else 's'} ({', '.join(inputs)}), which are handed over in "
            "their order. Give as many inputs as forward has arguments, or a Task whose forward "
            "calls the model in its own way."
        )
    return None


def _wrong_label(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    n = state.task.n_outputs
    if n is None or not isinstance(error, IndexError) or "out of bounds" not in str(error):
        return None
    for batch in batches:
        for name, target in batch.targets.items():
            wrong = (target < 0) | (target >= n)
            if target.ndim == 1 and not target.is_floating_point() and bool(wrong.any()):
                samples = _samples(batch, wrong)
                return InputError(
                    f"{name!r} holds {int(target[wrong][0])}, but there are {n} classes, 0 to "
                    f"{n - 1}{samples}. Mend the labels, or give the data all classes: "
                    "class_names=[…] or n_classes=…."
                )
    return None


def _wrong_index(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    if not isinstance(error, IndexError) or "index out of range" not in str(error):
        return None
    found = "; ".join(
        f"{name!r} goes from {int(value.min())} to {int(value.max())}"
        for name, value in batches[0].inputs.items()
        if not value.is_floating_point() and value.numel()
    )
    return InputError(
        f"A number is looked up that {where or 'an embedding of the model'} does not have"
        f"{f': {found}' if found else ''}. An nn.Embedding(n, …) takes 0 to n - 1: make it "
        "larger, or mend the numbers."
    )


def _wrong_kind(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    """A tensor of another device, dtype or shape than the layer takes."""
    said = str(error)
    if type(error) not in (RuntimeError, ValueError, NotImplementedError):
        return None
    kinds = sorted({str(value.device) for value in state.model.parameters()})
    if "same device" in said:
        mend = (
            f"The model's parameters are on {', '.join(kinds)}, the inputs on {state.device}. Make "
            "tensors in forward on the input's device (device=x.device), or register them with "
            "register_buffer; a model of several devices is not moved by the Learner."
        )
    elif _DTYPE.search(said):
        dtypes = sorted({_name(value.dtype) for value in state.model.parameters()})
        mend = (
            f"The model computes in {', '.join(dtypes)}. Convert inputs to compute with where the "
            "data are made (inputs.float()); whole numbers that stand for something are looked up "
            "in an nn.Embedding."
        )
    elif where and _SHAPE.search(said):
        mend = "Give that layer the size of what reaches it, or shape the inputs as it takes them."
    else:
        return None
    return TrainingError(
        f"The model cannot compute its answer to {_described(batches[0])}, "
        f"{f'in {where}' if where else 'in its forward or the loss'}: {_first_line(error)}. {mend}"
    )


# ---------------------------------------------------------------- words


def _layer(error: BaseException, model: nn.Module) -> str:
    """The innermost module of the model in the traceback: ``layer 'body.0' (Linear)``."""
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    names = {id(module): name for name, module in modules}
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module: object = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in names:
            name, kind = names[id(module)], type(module).__name__
            found = f"layer {name!r} ({kind})" if name else kind
    return found


def _samples(batch: Batch, wrong: Tensor) -> str:
    if batch.indices is None:
        return ""
    numbers = batch.indices[wrong.cpu()][:_SAMPLES]
    return f" (sample {', '.join(str(int(number)) for number in numbers)})"


def _described(batch: Batch) -> str:
    return ", ".join(
        f"{name} {tuple(value.shape)} {_name(value.dtype)}" for name, value in batch.inputs.items()
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
