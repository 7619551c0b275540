"""A phase as it is trained: its steps, its losses, and what is under way."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from partitioning import DamagedFileError, write_json
from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast
from trainers.methods.networks import SharedNetworks
from trainers.methods.phase_files import Kept, Point, load_phase, save_phase
from trainers.methods.plan import Plan
from trainers.methods.surgery import combined
from trainers.network import cross_entropy, distillation, to_channels_last
from trainers.optim import SGDConfig, learning_rate_at
from trainers.pace import Pace

#: Softens what old networks give (Hinton et al. 2015, as Li and Hoiem 2016 use it).
TEMPERATURE = 2.0
#: Points of a phase's curve.
POINTS = 50


class PhaseRun:
    """A phase as it is trained.

    Args:
        plan: Of the method.
        number: Of the phase.
        networks: By part; trained in place.
        data: The tasks that the phase learns.
        sgd: Steps, batch size, learning rate.
        seed: Of the training.
        compute: Precision.
        device: Of networks and data.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        number: int,
        networks: Mapping[str, SharedNetworks],
        data: Mapping[str, Task],
        sgd: SGDConfig,
        seed: int,
        compute: ComputeConfig,
        device: torch.device,
    ) -> None:
        self.kept = Kept()
        self._all, self._data, self._compute = networks, data, compute
        of_phases = plan.steps(sgd.steps)
        self._sgd = replace(sgd, steps=of_phases[number])
        self._done, self._whole = sum(of_phases[:number]), sum(of_phases)
        self._device = device
        self._phase = phase = plan.phases[number]
        self._surgery = plan.surgery
        self._part = part = networks[phase.part]
        self._tasks = [network.task for network in part.part.masks.networks]
        self._names = [str(network) for network in part.part.masks.networks]
        self._generator = torch.Generator(device).manual_seed(1000 * seed + number)
        torch.manual_seed(1000 * seed + number)  # of dropout and gradient surgery
        # Rows of phases before: what they use is not changed where the phase trains new weights.
        self._before = [
            row for each in plan.phases[:number] if each.part == phase.part for row in each.rows
        ]
        self._teachers = self._old_networks()
        for row, source in (phase.inherits or {}).items():
            part.inherit(row, source)
        self._optimizer = self._make_optimizer()
        steps = self._sgd.steps
        prune_at = min(max(1, round(phase.prune_at * steps)), steps - 1)
        self._prune_at = None if phase.keep is None else prune_at
        self._step = 0
        self._sums: dict[int, Tensor] = {}
        self._summed = 0

    def train(self, path: Path, digest: str, progress: Path | None, every: float) -> None:
        """Train to the end, from what is under way if there is any."""
        started = time.perf_counter()
        self._resume(path, digest)
        already, pace = self.kept.seconds, Pace(every)
        self._hold()
        frozen = self._prepare()
        steps = self._sgd.steps
        while self._step < steps:
            self._advance()
            if self._step % max(1, steps // POINTS) == 0 or self._step == steps:
                self._note(progress)
            if self._step < steps and pace.due():
                self.kept.seconds = already + time.perf_counter() - started
                with pace.kept():
                    self._keep(path, digest)
        for parameter in frozen:
            parameter.requires_grad_(True)
        self.kept.seconds = already + time.perf_counter() - started

    def _make_optimizer(self) -> torch.optim.Optimizer:
        part, phase, sgd = self._part, self._phase, self._sgd
        decayed, others = part.parameters([*phase.rows, *phase.distilled], phase.changes)
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": sgd.weight_decay}]
        return torch.optim.SGD(
            [*groups, {"params": others}],
            lr=sgd.learning_rate,
            momentum=sgd.momentum,
            nesterov=sgd.momentum > 0,
        )

    def _prepare(self) -> list[nn.Parameter]:
        """Be ready for steps; returns parameters that are without gradients until they are done."""
        part, phase = self._part, self._phase
        only_head = phase.changes == "head"
        for row in (*phase.rows, *phase.distilled):
            part.rows[row].row.module.train(not only_head)
        return part.freeze(phase.rows) if only_head else []

    def _rate(self) -> float:
        """The learning rate of the step."""
        return learning_rate_at(self._sgd, self._step)

    def _advance(self) -> None:
        """One step."""
        part, phase, sgd = self._part, self._phase, self._sgd
        if self._step == self._prune_at and phase.keep is not None:
            part.prune(phase.rows[0], phase.keep)
            self._hold()
        batches = {}
        for name, task in self._data.items():
            images, labels = draw_batch(task.splits["train"], sgd.batch_size, self._generator)
            batches[name] = to_channels_last(augment(images, task, self._generator)), labels
        losses = self._backward(batches)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, (mask, before) in self._held.items():
                part.shared[name].copy_(torch.where(mask, before, part.shared[name]))
        for row, loss in losses.items():
            self._sums[row] = self._sums.get(row, 0.0) + loss
        self._step += 1
        self._summed += 1

    def _backward(self, batches: Mapping[str, tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
        """The gradients of all rows' losses, and the losses."""
        part, phase = self._part, self._phase
        losses: dict[int, Tensor] = {}
        by_task: dict[str, list[Tensor]] = {}
        trained = [p for p in part.shared.values() if p.requires_grad]
        for name, (images, labels) in batches.items():
            for row in phase.rows:
                if self._tasks[row] == name:
                    logits = self._logits(images, row)
                    loss = cross_entropy(logits, labels, self._sgd.label_smoothing)
                    loss.backward()
                    losses[row] = loss.detach()
            if self._surgery:
                by_task[name] = [p.grad for p in trained if p.grad is not None]
                for parameter in trained:
                    parameter.grad = None
        if self._surgery:
            whole = combined(self._surgery, list(by_task.values()))
            for parameter, gradient in zip(trained, whole, strict=True):
                parameter.grad = gradient
        for row in phase.distilled:
            ((images, _),) = batches.values()  # of the one new task
            with torch.no_grad(), self._precision():
                targets = self._teachers[self._tasks[row]](images)
            loss = distillation(self._logits(images, row), targets, TEMPERATURE)
            loss.backward()
            losses[row] = loss.detach()
        return losses

    def _logits(self, images: Tensor, row: int) -> Tensor:
        """Logits of a row, computed in the training's precision; all that follows is not."""
        with self._precision():
            return self._part(images, row)

    def _precision(self) -> AbstractContextManager[object]:
        return autocast(self._device, self._compute.precision)

    def _old_networks(self) -> dict[str, Any]:
        """By task that is distilled, its highest level as it is before the phase."""
        part, found = self._part, {}
        top = {self._tasks[row]: row for row in self._phase.distilled}
        old = {n: t.detach().clone() for n, t in part.shared.items()} if top else {}
        for task, row in top.items():
            frozen = part.rows[row].frozen_copy()
            frozen.row.module.eval()
            found[task] = functools.partial(frozen, old)
        return found

    def _hold(self) -> None:
        """Remember the shared weights that this phase leaves as they are, weight decay too."""
        part, phase = self._part, self._phase
        self._held: dict[str, tuple[Tensor, Tensor]] = {}
        if phase.changes == "head":
            return
        used = [part.used(row) for row in (*phase.rows, *phase.distilled)]
        before = [part.used(row) for row in self._before] if phase.changes == "new" else []
        for name, weight in part.shared.items():
            mask = ~torch.stack([each[name] for each in used]).any(dim=0)
            for each in before:
                mask |= each[name]
            if bool(mask.any()):
                self._held[name] = mask, weight.detach().clone()

    def _note(self, progress: Path | None) -> None:
        """A point of the curve.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        if not self._summed:
            return
        rows = list(self._sums)
        means = (torch.stack([self._sums[row] for row in rows]) / self._summed).tolist()
        for row, mean in zip(rows, means, strict=True):
            if not abs(mean) < float("inf"):
                raise FloatingPointError(
                    f"the loss of {self._names[row]} is not finite at step {self._step}; lower "
                    f"train.sgd.learning_rate ({self._sgd.learning_rate})"
                )
        loss = {self._names[row]: round(mean, 5) for row, mean in zip(rows, means, strict=True)}
        self.kept.curve.append(Point(step=self._step, loss=loss))
        self._sums, self._summed = {}, 0
        if progress is not None:
            done = {"step": self._done + self._step, "steps": self._whole}
            write_json(progress, {**done, "loss": sum(means) / len(means)})

    def _keep(self, path: Path, digest: str) -> None:
        """Write what is under way."""
        more: dict[str, Tensor] = {
            f"momentum/{at}/{which}": state
            for at, parameter in enumerate(self._parameters())
            for which, state in self._optimizer.state[parameter].items()
            if isinstance(state, Tensor)
        }
        more |= {f"sum/{row}": torch.as_tensor(loss) for row, loss in self._sums.items()}
        more["random/batches"] = self._generator.get_state()
        more["random/torch"] = torch.get_rng_state()
        if self._device.type == "cuda":
            more["random/cuda"] = torch.cuda.get_rng_state(self._device)
        about = {"step": str(self._step), "summed": str(self._summed)}
        self._save(path, digest, more, about)

    def save(self, path: Path, digest: str) -> None:
        """Write what the phase has trained."""
        self._save(path, digest)

    def _save(
        self,
        path: Path,
        digest: str,
        more: Mapping[str, Tensor] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        rows = sorted({*self._before, *self._phase.rows, *self._phase.distilled})
        save_phase(path, digest, self._phase.part, self._part, rows, self.kept, more, about)

    def _resume(self, path: Path, digest: str) -> None:
        """Go on from what is under way; a damaged file is passed over, and replaced."""
        try:
            kept, arrays, about = load_phase(path, digest, self._all)
        except (FileNotFoundError, DamagedFileError):
            return
        self.kept = kept
        for at, parameter in enumerate(self._parameters()):
            state = {
                # Adam counts its steps on the CPU.
                name.rpartition("/")[2]: array.to(self._device) if array.ndim else array
                for name, array in arrays.items()
                if name.startswith(f"momentum/{at}/")
            }
            if state:
                self._optimizer.state[parameter] = state
        self._sums = {
            int(name.removeprefix("sum/")): array.to(self._device)
            for name, array in arrays.items()
            if name.startswith("sum/")
        }
        self._generator.set_state(arrays["random/batches"])
        torch.set_rng_state(arrays["random/torch"])
        if "random/cuda" in arrays and self._device.type == "cuda":
            torch.cuda.set_rng_state(arrays["random/cuda"], self._device)
        self._step, self._summed = int(about["step"]), int(about["summed"])

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]
