"""Error messages for failed steps, which add the layer, the cause and a fix to torch's error."""

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
    check_signature,
)
from flambeau.task.class_validation import wrong_label_error
from flambeau.task.model_call import bind_inputs
from flambeau.task.task import Task
from flambeau.torch_internals import is_dead_worker
from flambeau.wording import first_line, type_and_first_line

if TYPE_CHECKING:
    from flambeau.training.state import TrainState

_ONE_VALUE = "Expected more than 1 value per channel when training"
_DTYPE = re.compile(
    r"same dtype|expected scalar type|type .* should be the same|not implemented for '\w+'"
)
_CHANNELS = re.compile(r"to have (\d+) channels")
_USER_ERRORS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_SHAPE = re.compile(
    r"cannot be multiplied|size mismatch|shape mismatch|must match the size|[Ee]xpected .*\d-?D|"
    r"expected input.* channels|invalid for input of size|[Kk]ernel size can't be|Given input size|"
    r"Sizes of tensors must match|Given normalized_shape|[Ii]nput\.size\(-1\) must be equal|"
    r"same number of dimensions"
)


def explain_step_error(error: Exception, batches: Sequence[Batch], state: TrainState) -> Exception:
    """Return a flambeau error with cause and fix for a known error, else ``error`` itself.

    The gradients of the step are cleared. After an out-of-memory error the local variables in the
    frames of the traceback are cleared too.

    Args:
        error: The exception that ``train_step`` raised.
        batches: The micro-batches of the step, on the device.
        state: The state of the run.
    """
    for parameter in state.model.parameters():
        parameter.grad = None
    if isinstance(error, FlambeauError):
        return error
    if is_dead_worker(error):
        return _dead_worker(error)
    if is_out_of_memory(error):
        return _out_of_memory(error, batches, state)
    where = _layer(error, state.model)
    for find in (
        _single_sample,
        _wrong_call,
        _wrong_label,
        _wrong_index,
        _wrong_tensor,
        _wrong_loss,
    ):
        found = find(error, where, batches, state)
        if found is not None:
            return found
    return error


@contextmanager
def explaining_evaluation_errors(state: TrainState) -> Generator[None]:
    """Turn errors of memory and of worker processes in an evaluation into errors with a fix."""
    try:
        yield
    except Exception as error:
        if is_dead_worker(error):
            raise _dead_worker(error) from error
        if isinstance(error, FlambeauError) or not is_out_of_memory(error):
            raise
        _release(error, state)
        raise OutOfMemoryError(
            f"Out of memory on {state.device} in the evaluation after training step "
            f"{state.position.step}: {_summary(error)}. The weights of that step are kept. "
            'Use a smaller batch size, choices={"batch_size": …}; evaluation uses it too.'
        ) from error


def _dead_worker(error: Exception) -> TrainingError:
    reason = first_line(error).rstrip(". ")
    return TrainingError(
        f"A worker process of a data loader died ({reason}). A common cause is too little memory: "
        "reduce num_workers, or set num_workers=0 to see the cause."
    )


def _out_of_memory(
    error: Exception, batches: Sequence[Batch], state: TrainState
) -> OutOfMemoryError:
    sizes = [len(batch) for batch in batches]
    largest, parts = max(sizes, default=0), len(sizes)
    in_parts = f" in {parts} micro-batches" if parts > 1 else ""
    if state.context.carry is not None:
        fix = "Each batch continues the one before: use fewer streams or shorter sequences"
    elif largest > 1:
        fix = (
            f'For the same step from smaller batches, use choices={{"batch_size": '
            f'{(largest + 1) // 2}, "accumulate": {2 * parts}}} (build a custom loader with '
            "that batch_size)"
        )
    else:
        fix = "A single sample does not fit: use smaller inputs or a smaller model"
    if _is_fp32(state) and has_fast_bf16(state.device):
        fix += ', or choices={"precision": "bf16"}, which halves the memory of the activations'
    _release(error, state)
    return OutOfMemoryError(
        f"Out of memory on {state.device} in training step {state.position.step}, on a batch of "
        f"{sum(sizes)} samples{in_parts}: {_summary(error)}. The weights were not changed by the "
        f"step. {fix}, or freeze part of the model (learner.freeze())."
    )


def _release(error: BaseException, state: TrainState) -> None:
    """Free the tensors that the frames of the traceback refer to."""
    state.context.carry = None
    traceback.clear_frames(error.__traceback__)
    if state.device.type == "cuda":
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _is_fp32(state: TrainState) -> bool:
    return not torch.is_autocast_enabled(state.device.type) and all(
        value.dtype == torch.float32 for value in state.model.parameters()
    )


# ---------------------------------------------------------------- known errors


def _single_sample(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    if _ONE_VALUE not in str(error):
        return None
    sizes = ", ".join(str(len(batch)) for batch in batches)
    return InputError(
        f"Batch norm cannot compute statistics from a single value: {where or 'the model'} got one "
        f"value per channel, from a batch of {sizes}. Use a batch_size of at least 2 and drop a "
        "last batch of one sample (DataLoader(…, drop_last=True)); or use the stored statistics, "
        'choices={"bn": "eval"}; or use a norm without statistics (nn.LayerNorm, nn.GroupNorm).'
    )


def _wrong_call(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    kind = type(state.model).__name__
    if isinstance(error, NotImplementedError) and 'required "forward"' in str(error):
        return ArgumentError(f"{kind} has no forward method. Define it: def forward(self, x).")
    if not isinstance(error, TypeError) or type(state.task).forward is not Task.forward:
        return None
    inputs = batches[0].inputs
    signature = inspect.signature(state.model.forward)
    binding = bind_inputs(state.model, tuple(inputs))
    try:
        signature.bind(*binding.positional, **dict.fromkeys(binding.keywords))
        if "unexpected keyword argument" in str(error) and binding.keywords:
            return ArgumentError(
                f"{kind}.forward{signature} passes the inputs {', '.join(inputs)} on by name, but "
                f"{type_and_first_line(error)}. Give the inputs the names of the arguments, or "
                "override the task's forward to call the model."
            )
    except TypeError:
        shown = (*binding.positional, *(f"{name}=" for name in binding.keywords))
        return ArgumentError(
            f"{kind}.forward takes {signature}, but the data have {len(inputs)} input"
            f"{'' if len(inputs) == 1 else 's'}, passed as ({', '.join(shown)}). "
            "Use data with as many inputs as forward has arguments, or a Task whose forward calls "
            "the model with the arguments that it needs."
        )
    return None


def _wrong_label(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    found = (wrong_label_error(error, batch, state.task.n_outputs) for batch in batches)
    return next((each for each in found if each is not None), None)


def _wrong_index(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    if not isinstance(error, IndexError) or "index out of range" not in str(error):
        return None
    found = "; ".join(
        f"{name!r} ranges from {int(value.min())} to {int(value.max())}"
        for name, value in batches[0].inputs.items()
        if not value.is_floating_point() and value.numel()
    )
    return InputError(
        f"An index is out of range for {where or 'an embedding of the model'}"
        f"{f': {found}' if found else ''}. An nn.Embedding(n, …) takes indices 0 to n - 1. Make it "
        "larger, or correct the indices."
    )


def _wrong_tensor(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    """Explain a tensor whose device, dtype or shape the layer does not accept."""
    message = str(error)
    if type(error) not in (RuntimeError, ValueError, NotImplementedError):
        return None
    kinds = sorted({str(value.device) for value in state.model.parameters()})
    if "same device" in message or "not on the expected device" in message:
        fix = (
            f"The model's parameters are on {', '.join(kinds)}, the inputs on {state.device}. "
            "Create tensors in forward on the device of the input (device=x.device), or register "
            "them with register_buffer. The Learner does not move a model that is on several "
            "devices."
        )
    elif _DTYPE.search(message):
        dtypes = sorted({_name(value.dtype) for value in state.model.parameters()})
        fix = (
            f"The model computes in {', '.join(dtypes)}. Convert numeric inputs to that dtype in "
            "the data (inputs.float()); pass integer codes through an nn.Embedding."
        )
    elif where and _SHAPE.search(message):
        fix = (
            _channels_hint(message, batches[0])
            or "Change the size of that layer, or the shape of its input, so that the two match."
        )
    else:
        return None
    return TrainingError(
        f"The model cannot compute its output for {_described(batches[0])}, "
        f"{f'in {where}' if where else 'in its forward or the loss'}: {_summary(error)}. {fix}"
    )


def _channels_hint(message: str, batch: Batch) -> str:
    """Return the fix for images whose channels are not the second axis; empty for other errors."""
    wanted = _CHANNELS.search(message)
    if wanted is None:
        return ""
    channels = int(wanted[1])
    for name, value in batch.inputs.items():
        if value.ndim == 4 and value.shape[-1] == channels:
            return (
                f"The channels of {name!r} are its last axis, but torch expects them before height "
                f"and width, (batch, {channels}, height, width): permute(0, 3, 1, 2)."
            )
        if value.ndim == 3 and channels == 1:
            return f"{name!r} has no axis of channels: add it with unsqueeze(1)."
    return ""


def _wrong_loss(
    error: Exception, where: str, batches: Sequence[Batch], state: TrainState
) -> Exception | None:
    """Explain an error in the loss of a user-defined task: it shows what a batch contains."""
    is_own = type(state.task).loss.__module__.startswith("flambeau")
    if is_own or not isinstance(error, _USER_ERRORS):
        return None
    loss = getattr(type(state.task).loss, "__code__", None)
    frames = list(traceback.walk_tb(error.__traceback__))
    line = next((number for frame, number in frames if frame.f_code is loss), None)
    batch, name = batches[0], type(state.task).__name__
    if line is None:
        with suppress(AttributeError):
            check_signature(state.task.loss, f"{name}.loss", "outputs", "batch")
        return None
    targets = ", ".join(f"batch.targets[{key!r}] {_shown(v)}" for key, v in batch.targets.items())
    return TrainingError(
        f"{name}.loss failed in line {line} with {type_and_first_line(error)}. It gets the outputs "
        f"of the model and the batch, whose inputs are {_described(batch)}; its targets are "
        f"{targets or 'none'}{' (or batch.target)' if len(batch.targets) == 1 else ''}."
    )


# ---------------------------------------------------------------- wording


def _layer(error: BaseException, model: nn.Module) -> str:
    """Return the innermost module of the model in the traceback: ``layer 'body.0' (Linear)``."""
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    names = {id(module): name for name, module in modules}
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module: object = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in names:
            name, kind = names[id(module)], type(module).__name__
            found = f"layer {name!r} ({kind})" if name else kind
    return found


def _described(batch: Batch) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in batch.inputs.items())


def _shown(value: Tensor) -> str:
    return f"{tuple(value.shape)} {_name(value.dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _summary(error: BaseException) -> str:
    return first_line(error).rstrip(".")
