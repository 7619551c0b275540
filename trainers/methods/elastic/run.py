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
        """The losses of one model for every image and budget; what is trained on is their mean."""
        part = self._part
        models_BGn = draws_of(self._phase, part, images, task, self._generator)
        count = models_BGn.shape[1]
        models = models_BGn.transpose(0, 1).flatten(0, 1)
        with self._precision():
            logits = part.chosen(images.repeat(count, 1, 1, 1), task, models, training=True)
        smoothing = self._sgd.label_smoothing
        cross_entropy(logits, labels.repeat(count), smoothing).backward()
        each = logits.detach().unflatten(0, (count, len(images)))
        return {
            part.row_of(task, part.part.levels + budget): cross_entropy(own, labels, smoothing)
            for budget, own in enumerate(each)
        }

    def _step_of_selector(self, task: str, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        """What models that the selector draws come to, in accuracy and size (DEN, eq. 4-7)."""
        part, phase = self._part, self._phase
        epsilon = phase.epsilon * (1 - self._step / self._sgd.steps)
        logits = part.logits_of(images, task)
        models_SBGn = torch.stack(
            [policy.act(logits.detach(), epsilon, self._generator) for _ in range(phase.samples)]
        )
        loss_SGB = self._come_to(task, images, labels, models_SBGn.transpose(1, 2))
        log_p_SBG = policy.log_probability(
            logits.expand(phase.samples, *logits.shape), models_SBGn, epsilon
        ).sum(-1)
        total = images.new_zeros(())
        losses = {}
        for budget in range(len(part.part.cost_weights)):
            own = loss_SGB[:, budget]
            total = total + policy.surrogate(log_p_SBG[..., budget], own, baseline=phase.baseline)
            losses[part.row_of(task, part.part.levels + budget)] = own.mean()
        total.backward()
        return losses

    @torch.no_grad()
    def _come_to(self, task: str, images: Tensor, labels: Tensor, models_SGBn: Tensor) -> Tensor:
        """(S, G, B): the loss and the price of size of S models for every budget and image."""
        part = self._part
        shape = models_SGBn.shape[:3]
        count = shape[0] * shape[1]
        with self._precision():
            found = part.chosen(images.repeat(count, 1, 1, 1), task, models_SGBn.flatten(0, 2))
        loss = F.cross_entropy(found.float(), labels.repeat(count), reduction="none")
        share_nh = part.share[task].to(images.device)
        share_SGB = share_nh[torch.arange(len(share_nh)), models_SGBn].mean(-1)
        weight_G = torch.tensor(part.part.cost_weights, device=images.device)
        return loss.view(shape) + weight_G[:, None] * share_SGB**2
