"""Laws of the loop: loops grow without a jump, judging changes nothing, frozen is frozen."""

import pytest
import torch
from rich.console import Console

from canvas_robot.training.parts import build_parts
from canvas_robot.training.progress import TrainingProgress
from canvas_robot.training.run_folder import RunFolder
from canvas_robot.training.sharing import make_accelerator
from canvas_robot.training.trainer import Trainer


@pytest.fixture(scope="module")
def trainer(make_config, video, tmp_path_factory):
    """One that ran four updates at one loop of three."""
    config = make_config(
        *video, "loops=3", "ema.decay=0.9", "curriculum.warmup_fraction=0.9", "log_every=100"
    )
    accelerator = make_accelerator(config)
    parts = build_parts(config, accelerator)
    trainer = Trainer(
        parts,
        accelerator,
        RunFolder(tmp_path_factory.mktemp("run")),
        False,
        TrainingProgress(Console(quiet=True), 4, shown=False),
    )
    trainer.frozen = {
        name: p.detach().clone()
        for name, p in parts.objective.named_parameters()
        if not p.requires_grad
    }
    trainer.data = parts.data
    assert trainer.train() == 0
    return trainer


def test_one_loop_more_changes_no_loss_when_it_comes(trainer):
    """What trained at one loop left the others' gates at zero."""
    batch, losses = trainer.data.largest(2), []
    assert trainer.objective.loops == 1
    for loops in (1, 2, 3):
        trainer.objective.set_loops(loops)
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append(trainer.objective(batch)["loss"])
    trainer.objective.set_loops(1)
    assert losses[0] == losses[1] == losses[2]


def test_frozen_weights_stay_as_they_were_and_have_no_state(trainer):
    for name, parameter in trainer.objective.named_parameters():
        if name in trainer.frozen:
            assert torch.equal(parameter, trainer.frozen[name])
    own = {id(p) for p in trainer.trained.values()}
    kept = trainer._optimiser.state
    assert kept and {id(p) for p in kept} <= own
    numbers = sum(state["exp_avg"].numel() for state in kept.values())
    assert numbers == sum(p.numel() for p in trainer.trained.values())


def test_judging_gives_the_same_twice_and_leaves_everything_as_it_was(trainer):
    torch.manual_seed(5)
    weights = {name: p.detach().clone() for name, p in trainer.trained.items()}
    before = torch.get_rng_state()
    first = trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert trainer.evaluate() == first
    assert all(torch.equal(p, weights[name]) for name, p in trainer.trained.items())
    assert set(first) == {"loss", "action", "future"}


def test_what_is_judged_is_the_average(trainer):
    first = trainer.evaluate()
    with torch.no_grad():
        for parameter in trainer.trained.values():
            parameter.add_(1.0)
    assert trainer.evaluate() == first
    with torch.no_grad():
        for parameter in trainer.trained.values():
            parameter.sub_(1.0)
