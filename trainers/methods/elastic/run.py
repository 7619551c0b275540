"""Training networks whose blocks have levels, and the selector, in turn (DEN, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import policy
from trainers.methods.elastic.networks import ElasticNetworks
from trainers.methods.phase_run import PhaseRun
from trainers.methods.plan import Phase
from trainers.network import cross_entropy

#: Where an image's model comes from: the whole one or any (DEN, eq. 8); each block whole or any
#: (dropped building blocks: Auto-VirtualNet, section 4.1); the selector.
DRAWS = ("whole_or_any", "each_whole_or_any", "selector")


@dataclass(frozen=True, kw_only=True)
class ElasticPhase(Phase):
    """A phase of the networks, or of the selector.

    Attributes:
        trains: networks or selector.
        draw: One of `DRAWS`.
        whole: With which probability a model, or a block, is the whole one; of the first two draws.
        epsilon: Share of the selector's choices that are drawn uniformly instead; falls to zero
            linearly over the phase.
        samples: Models for each image and budget while the selector is trained.
        baseline: Whether the mean of other samples is taken off what a model came to.
        rate: Adam's learning rate, for the selector.
    """

    trains: str = "networks"
    draw: str = "selector"
    whole: float = 0.0
    epsilon: float = 0.0
    samples: int = 1
    baseline: bool = True
    rate: float = 1e-3


def draws_of(
    phase: ElasticPhase,
    networks: ElasticNetworks,
    images: Tensor,
    task: str,
    generator: torch.Generator,
) -> Tensor:
    """Models (B, budgets, n) for images in an estimator's phase, by budget.

    Args:
        phase: Says how they are drawn.
        networks: With the selector.
        images: Normalised, (B, 3, S, S).
        task: Theirs.
        generator: Of all that is random.
    """
    part = networks.part
    shape = len(images), len(part.cost_weights), len(networks.blocks)
    uniform = torch.rand(shape, generator=generator, device=images.device)
    if phase.draw == "selector":
        with torch.no_grad():
            return policy.draw(networks.logits_of(images, task), uniform)
    whole = torch.rand(shape, generator=generator, device=images.device)
    if phase.draw == "whole_or_any":
        return policy.draw_whole_or_any(whole[..., 0], uniform, part.levels, phase.whole)
    any_ = policy.draw_any(uniform, part.levels)
    return torch.where(whole < phase.whole, part.levels - 1, any_)


class ElasticRun(PhaseRun):
    """A phase of networks whose blocks have levels, or of their selector."""

    _part: ElasticNetworks
    _phase: ElasticPhase

    def _make_optimizer(self) -> torch.optim.Optimizer:
        if self._phase.trains == "networks":
            return super()._make_optimizer()
        return torch.optim.Adam(self._part.selector.parameters(), lr=self._phase.rate)

    def _prepare(self) -> list[nn.Parameter]:
        self._part.selector.train(self._phase.trains == "selector")
        return []  # what a selector's choices come to is computed without gradients

    def _rate(self) -> float:
        if self._phase.trains == "networks":
            return super()._rate()
        return self._phase.rate

    def _backward(self, batches: Mapping[str, tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
        step = (
            self._step_of_networks if self._phase.trains == "networks" else self._step_of_selector
        )
        losses: dict[int, Tensor] = {}
        for task, (images, labels) in batches.items():
            losses |= step(task, images, labels)
        return losses

    def _step_of_networks(self, task: str, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        """The losses of one model for every image and budget, summed."""
        part, losses = self._part, {}
        models = draws_of(self._phase, part, images, task, self._generator)
        for budget in range(models.shape[1]):
            with self._precision():
                logits = part.chosen(images, task, models[:, budget], training=True)
            loss = cross_entropy(logits, labels, self._sgd.label_smoothing)
            loss.backward()
            losses[part.row_of(task, part.part.levels + budget)] = loss.detach()
        return losses

    def _step_of_selector(self, task: str, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        """What models that the selector draws come to, in accuracy and size (DEN, eq. 4-7)."""
        part, phase = self._part, self._phase
        epsilon = phase.epsilon * (1 - self._step / self._sgd.steps)
        logits = part.logits_of(images, task)
        share_nh = torch.as_tensor(part.share_nh, dtype=torch.float32, device=images.device)
        total = images.new_zeros(())
        losses = {}
        for budget, weight in enumerate(part.part.cost_weights):
            own = logits[:, budget]
            log_p, came_to = [], []
            for _ in range(phase.samples):
                models = policy.act(own.detach(), epsilon, self._generator)
                with torch.no_grad(), self._precision():
                    found = part.chosen(images, task, models)
                each = F.cross_entropy(found.float(), labels, reduction="none")
                share = share_nh[torch.arange(len(share_nh)), models].mean(1)
                came_to.append(each + weight * share**2)
                log_p.append(policy.log_probability(own, models, epsilon).sum(-1))
            loss = torch.stack(came_to)
            total = total + policy.surrogate(torch.stack(log_p), loss, baseline=phase.baseline)
            losses[part.row_of(task, part.part.levels + budget)] = loss.mean()
        total.backward()
        return losses
