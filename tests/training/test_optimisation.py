"""Laws of the optimiser, the learning rate's course and the moving average."""

import pytest
import torch
from torch import nn

from canvas_robot.training.config import EmaConfig, OptimiserConfig
from canvas_robot.training.optimisation import (
    averaged,
    make_average,
    make_optimiser,
    make_schedule,
    state_bytes,
)


class Gated(nn.Module):
    """A matrix that decays, a gate and a norm that do not, and a frozen matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.gate = nn.Parameter(torch.ones(3, 1))
        self.frozen = nn.Linear(100, 100).requires_grad_(False)

    def trained(self):
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def forward(self, x):
        return self.gate.sum() * self.norm(self.linear(x))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Gated()


def steps(module, optimiser, schedule, count):
    """The learning rates of some updates."""
    rates = []
    for _ in range(count):
        module(torch.ones(2, 4)).square().mean().backward()
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return rates


def test_only_matrices_decay(module):
    optimiser = make_optimiser(module, module.trained(), OptimiserConfig(weight_decay=0.3))
    decay = {
        id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]
    }
    found = {name: decay[id(p)] for name, p in module.trained().items()}
    assert found == {
        "linear.weight": 0.3,
        "linear.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "gate": 0.0,
    }


def test_frozen_parameters_have_no_state(module):
    optimiser = make_optimiser(module, module.trained(), OptimiserConfig())
    steps(module, optimiser, make_schedule(optimiser, OptimiserConfig(), 5), 2)
    trained = sum(p.numel() for p in module.trained().values())
    assert trained == 4 * 4 + 4 + 2 * 4 + 3
    counts = 4 * len(module.trained())  # AdamW keeps a step count for each
    assert state_bytes(optimiser) == 2 * 4 * trained + counts


@pytest.mark.parametrize(
    "schedule, rates",
    [
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.0, 0.5, 1.0, 0.75, 0.25, 0.0]),
    ],
)
def test_the_learning_rate_rises_and_then_stays_or_falls(module, schedule, rates):
    """Over 2 warm-up steps to 0.1, then for 3 steps to a tenth of it."""
    config = OptimiserConfig(lr=0.1, warmup_steps=2, schedule=schedule, min_lr_ratio=0.1)
    optimiser = make_optimiser(module, module.trained(), config)
    found = steps(module, optimiser, make_schedule(optimiser, config, 5), 6)
    floor = 0.01 if schedule == "cosine" else 0.0
    expected = [rate * (0.1 - floor) + floor for rate in rates]
    expected[:3] = [0.0, 0.05, 0.1]
    assert found == pytest.approx(expected)


def test_the_average_follows_its_formula_and_leaves_the_weights_alone(module):
    average = make_average(module.trained(), EmaConfig(decay=0.9))
    expected = [p.detach().clone() for p in module.trained().values()]
    for update in range(1, 6):
        with torch.no_grad():
            for p in module.trained().values():
                p.add_(torch.randn_like(p))
        average.step(module.trained().values())
        decay = min(0.9, (update) / (9 + update)) if update > 1 else 0.0
        pairs = zip(expected, module.trained().values(), strict=True)
        expected = [decay * e + (1 - decay) * p.detach() for e, p in pairs]
    for shadow, value in zip(average.shadow_params, expected, strict=True):
        torch.testing.assert_close(shadow, value)
    before = [p.detach().clone() for p in module.trained().values()]
    with averaged(average, module.trained().values()):
        for p, shadow in zip(module.trained().values(), average.shadow_params, strict=True):
            assert torch.equal(p, shadow)
    for p, value in zip(module.trained().values(), before, strict=True):
        assert torch.equal(p, value)


def test_weights_come_back_from_the_average_whatever_happens(module):
    average = make_average(module.trained(), EmaConfig())
    with torch.no_grad():
        module.gate.fill_(5.0)
    with pytest.raises(KeyboardInterrupt), averaged(average, module.trained().values()):
        raise KeyboardInterrupt
    assert torch.equal(module.gate, torch.full((3, 1), 5.0))


def test_without_an_average_nothing_changes(module):
    assert make_average(module.trained(), "off") is None
    with averaged(None, module.trained().values()):
        pass
