"""``Tracker``: the base class of callbacks that log the rows of the history to a library."""

from __future__ import annotations

import importlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Literal

from flambeau.callbacks.run_record import described_options
from flambeau.errors import FlambeauWarning, MissingDependencyError
from flambeau.training.events import Callback
from flambeau.training.state import TrainState
from flambeau.wording import type_and_first_line

Outcome = Literal["finished", "failed", "interrupted"]
"""How a fit ended."""


class Tracker(Callback, ABC):
    """Logs the plan at the start of a run and each row of the history when it is complete.

    Nothing is logged or read from the device in a step. With several processes, rank 0 logs. A
    further fit of a learner and a resumed run continue the log. An error of the library gives a
    FlambeauWarning and ends the log; training continues.

    A subclass implements ``start``, ``log`` and ``finish``.

    Attributes:
        module: Module that is imported when the tracker is created.
        package: What to install for it.
        run_id: Identifies the log for the library; None before the first fit.
    """

    every_process = False

    module: ClassVar[str] = ""
    package: ClassVar[str] = ""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self._is_open = False
        self._has_failed = False
        self.api: Any = imported(self.module, self.package)

    @abstractmethod
    def start(self, state: TrainState, parameters: Mapping[str, Any]) -> str:
        """Open the log and write the parameters; return what identifies it.

        If ``run_id`` is set, that log is continued.

        Args:
            state: The state at the start of the fit.
            parameters: The plan, see ``parameters_of``.
        """

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of one row of the history.

        Args:
            values: Numbers by column.
            step: Number of finished optimizer steps.
        """

    @abstractmethod
    def finish(self, outcome: Outcome) -> None:
        """Close the log.

        It is called at the end of each fit, also after ``start`` or ``log`` raised an error; then
        its own errors are ignored.

        Args:
            outcome: How the fit ended.
        """

    def on_fit_start(self, state: TrainState) -> None:
        if not state.position.step:  # a run from the start gets a new log
            self.run_id = None
        self._is_open, self._has_failed = True, False

        def start() -> None:
            self.run_id = self.start(state, parameters_of(state))

        self._guarded(start, "start")

    def on_epoch_end(self, state: TrainState) -> None:
        row = state.history.rows[-1]
        values = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and name != "step"
        }
        self._guarded(lambda: self.log(values, state.position.step), "log")

    def on_fit_end(self, state: TrainState) -> None:
        self._end("finished")

    def on_exception(self, state: TrainState) -> None:
        is_interrupt = isinstance(state.exception, KeyboardInterrupt | SystemExit)
        self._end("interrupted" if is_interrupt else "failed")

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        self.run_id = values["run_id"]

    def _end(self, outcome: Outcome) -> None:
        if self._has_failed:
            # The library may still hold a run open, which would receive the rows of the next fit.
            with suppress(Exception):
                self.finish(outcome)
        self._guarded(lambda: self.finish(outcome), "finish")
        self._is_open = self._has_failed = False

    def _guarded(self, action: Callable[[], None], verb: str) -> None:
        """Run the action if the log is open; after an error the log is closed for this fit."""
        if not self._is_open:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - any error of a library must not end the training
            self._is_open, self._has_failed = False, True
            warnings.warn(
                f"[tracker-failed] {type(self).__name__} could not {verb}: "
                f"{type_and_first_line(error)}. Training continues, but this fit logs nothing more "
                "there; history.csv in the folder of the run has every row.",
                FlambeauWarning,
                stacklevel=2,
            )


def folder_name(state: TrainState) -> str | None:
    """Return the name of the run's folder, by which libraries name a run; None without one."""
    return None if state.folder is None else state.folder.name


def parameters_of(state: TrainState) -> dict[str, Any]:
    """Return the plan's values by key, the seed, and training options ("option.average").

    Numbers, texts, bools and None stay as they are; other values become JSON text.
    """
    choices: Any = state.plan().get("choices", [])
    plan = {each["key"]: _plain(each["value"]) for each in choices}
    options = {} if state.options is None else described_options(state.options)
    others = {f"option.{name}": text for name, text in options.items() if name not in plan}
    return {**plan, "seed": state.seed, **others}


def imported(module: str, package: str) -> Any:
    """Return a module.

    Raises:
        MissingDependencyError: It is not installed; the message names the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} cannot be imported ({error}). Install it: pip install {package}"
        ) from error


def _plain(value: Any) -> Any:
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return value if is_plain else json.dumps(value, ensure_ascii=False)
