"""The training loop: phases, epochs, steps and evaluations.

No value is read from the device inside a step: losses stay on the device until the epoch ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, continues_epoch
from flambeau.task.task import StepContext
from flambeau.training.freeze import set_train_modes
from flambeau.training.interrupt import deferred_interrupt
from flambeau.training.run import Run
from flambeau.training.step import checked_result


def fit(run: Run) -> None:
    """Run all phases, starting at the position of the run, then set the final weights."""
    state, position = run.state, run.state.position
    with deferred_interrupt() as interrupt:
        run.set_interrupt(interrupt)
        try:
            run.dispatch.send("on_fit_start", state)
            index = position.phase
            while index < len(state.phases):
                position.phase = index
                if position.phase_epoch < state.phase_epochs:
                    start_phase(run)
                    run.dispatch.send("on_phase_start", state)
                while position.phase_epoch < state.phase_epochs and not run.should_stop():
                    run_epoch(run)
                if run.should_stop():
                    break
                run.update_phases()
                position.phase_epoch = 0
                index += 1
            run.finish()
            run.dispatch.send("on_fit_end", state)
        except BaseException as error:
            state.exception = error
            run.dispatch.send_exception(state, error)
            run.finish_after(error)
            raise
        finally:
            run.release()


def start_phase(run: Run) -> None:
    """Set what the phase trains; with ``bn="adapt"`` compute the statistics of norm layers once."""
    if run.started_phase != run.state.position.phase:  # a resumed run has started its phase
        run.start_phase()
    if run.state.phase.bn == "adapt" and not run.adapted:
        from flambeau.training.norm.bn_statistics import adapt

        adapt(run)
        run.adapted = True


def run_epoch(run: Run) -> None:
    """Train for one epoch, evaluate, and add a row to the history."""
    from flambeau.training.logged_values import collecting, means_of
    from flambeau.training.nonfinite.skipped_steps import columns_of_skipped
    from flambeau.training.norm.bn_gap import check_train_eval_gap

    state, position = run.state, run.state.position
    started = time.perf_counter()
    run.dispatch.send("on_epoch_start", state)
    with collecting(state.task, run.logged):
        train_epoch(run)
    bad = run.update.first_bad_step(now=True)
    if bad is not None:
        run.raise_nonfinite(bad)
    # Losses are read after the evaluation, so that a run interrupted during it still has them.
    scores = evaluate(run)
    train_loss, logged = run.read_losses(), run.gather(run.logged.read())
    if state.task.loss_factors:
        from flambeau.training.several_losses_step import epoch_loss

        whole = run.spans_epoch()
        train_loss = epoch_loss(state.task, logged, train_loss, whole=whole)
    state.history.add(
        {
            "phase": state.phase.name,
            "epoch": run.epochs_done(),
            "step": position.step,
            "train_loss": train_loss,
            **{f"train_{name}": value for name, value in means_of(logged).items()},
            **({"steps_without_targets": run.empty_steps} if run.empty_steps else {}),
            **columns_of_skipped(run),
            **{f"valid_{name}": score for name, score in scores.items()},
            **state.task.score_notes(scores),
            **state.values,
            "seconds": time.perf_counter() - started,
        }
    )
    check_train_eval_gap(run)
    run.update_best_weights()
    position.phase_epoch += 1
    position.epoch += 1
    position.epoch_step = 0
    if not keeps_carry(run):
        state.context.carry = None
    run.run_controllers()
    run.dispatch.send("on_epoch_end", state)
    if run.interrupt.pending:  # after the last evaluation batch: stop before the next step
        raise KeyboardInterrupt


def keeps_carry(run: Run) -> bool:
    """Return whether the next epoch keeps the carried state; intervals reset it themselves."""
    epoch = run.state.position.epoch
    return run.settings.intervals is not None or continues_epoch(run.components.train, epoch)


def train_epoch(run: Run) -> None:
    """Make the remaining steps of the epoch; end it early if a callback sets ``stop_reason``."""
    state, position, context = run.state, run.state.position, run.state.context
    model, task, step, train_step = state.model, state.task, run.step, run.train_step
    on_step_start, on_step_end = run.dispatch.on_step_start, run.dispatch.on_step_end
    update, average, losses = run.update, run.average, run.losses
    steps_before, total_steps = state.fit_step - position.epoch_step, state.total_steps
    first_step = position.epoch_step  # not 0 in a resumed run
    set_train_modes(model, run.trainable, state.phase.bn)
    run.start_update_check()
    if run.update_check is not None:
        from flambeau.training.step_loss_check import checks_loss, with_loss_check

        train_step = with_loss_check(train_step, update) if checks_loss(run) else train_step
    for micro_batches in run.steps(run.grouped_batches()):
        context.step = position.step
        run.set_values(micro_batches)
        for listener in on_step_start:
            listener(state)
        state.at_step_boundary = False
        batches = [run.prepare_train(batch) for batch in micro_batches]
        step.micro_batches = batches
        step.start()
        carry = context.carry
        if update.guarded:
            update.record(position, micro_batches)
        try:
            result = checked_result(train_step(model, batches, task, step), batches)
        except Exception as error:
            from flambeau.training.error_messages import explain_step_error

            run.update.restore_statistics()
            fault = explain_step_error(error, batches, state)
            fault.add_note(f"In training step {position.step}, on {described(batches)}.")
            if fault is error:
                raise
            raise fault from error
        if update.skips_steps and context.carry is not None:
            from flambeau.training.nonfinite.skipped_steps import carry_after

            context.carry = carry_after(carry, context.carry, update.was_skipped())
        position.step += 1
        position.epoch_step += 1
        state.last = result
        losses.add(result)
        if average is not None:
            average.update(steps_before + position.epoch_step, total_steps, update.was_skipped())
        state.at_step_boundary = True
        if update.guarded and (bad := update.first_bad_step()) is not None:
            run.raise_nonfinite(bad)
        for listener in on_step_end:
            listener(state)
        if run.interrupt.pending:
            raise KeyboardInterrupt
        if state.stop_reason is not None:
            break
    run.end_steps()
    if run.update_check is not None:
        run.update_check.end_epoch(position.epoch_step - first_step)


def described(batches: Sequence[Batch]) -> str:
    """Return shapes and dtypes of the batches of a step, for an error message."""
    return ", then ".join(
        ", ".join(
            f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
            for name, value in (*batch.inputs.items(), *batch.targets.items())
        )
        for batch in batches
    )


def evaluate(run: Run) -> Mapping[str, float]:
    """Return loss and metrics on the validation set, and set ``state.scores``.

    Averaged weights are used if there are any. Before the evaluation, statistics of norm layers
    that lag behind the weights are recomputed. Without a validation set the result is empty.
    """
    from flambeau.training.error_messages import explaining_evaluation_errors
    from flambeau.training.logged_values import evaluate as evaluate_task
    from flambeau.training.norm.fresh_statistics import refresh_statistics, statistics_to_refresh

    state, lags = run.state, statistics_to_refresh(run)
    if run.components.valid is None and not lags:
        return state.scores
    state.model.eval()
    context = StepContext(
        "valid",
        values=state.context.values,
        seed=state.seed,
        epoch=run.data_epoch,
        step=state.position.step,
        sharded=run.shares_evaluation,
    )
    with (
        run.averaged_weights(),
        explaining_evaluation_errors(state),
        torch.no_grad(),
        run.step.autocast(),
    ):
        if lags:
            refresh_statistics(run)
        if run.components.valid is None:
            return state.scores
        run.dispatch.send("on_eval_start", state)
        batches = evaluation_batches(run, run.components.valid)
        scores = evaluate_task(state.task, state.model, batches, context)
        state.scores = run.broadcast_scores(scores)
        run.dispatch.send("on_eval_end", state)
    return state.scores


def evaluation_batches(run: Run, loader: Loader) -> Iterator[Batch]:
    """Yield normalised validation batches on the device; after each one was used, send an event."""
    for batch in loader.batches(0):
        yield run.prepare_valid(batch)
        for listener in run.dispatch.on_eval_step_end:
            listener(run.state)
        if run.interrupt.pending:
            raise KeyboardInterrupt
