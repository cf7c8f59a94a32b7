"""Laws of captured ticks: replayed, they give what running them gives. They need a CUDA device."""

import copy

import pytest
import torch

from canvas_robot.policy.graphs import Graphs
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.schema import CanvasLayout, CanvasSchema, CanvasTopology, Connection, RegionSpec
from tests.policy.test_ticks import WIDTH, due, made, random_tokens

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SCHEMA = CanvasSchema(
    CanvasLayout(
        1,
        3,
        4,
        WIDTH,
        {
            "slow": RegionSpec((0, 1, 0, 1, 0, 4), period=3),
            "goal": RegionSpec((0, 1, 1, 2, 0, 4), period=3, stream="text"),
            "fast": RegionSpec((0, 1, 2, 3, 0, 2), timestep=999),
        },
    ),
    CanvasTopology(
        [
            *CanvasTopology.dense(["slow", "goal"]).connections,
            Connection("fast", "slow"),
            Connection("fast", "goal", weight=2.0),
            Connection("fast", "fast"),
            Connection("fast", "slow", fn="gated"),
        ]
    ),
)


def test_what_was_not_captured_runs_as_it_is():
    graphs, calls = Graphs(), []
    graphs.run("a", lambda: calls.append("run"))
    assert calls == ["run"]
    steps = graphs.steps("b", lambda: iter([calls.append(1), calls.append(2)]))
    assert len(list(steps)) == 2


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("refresh", ["inline", "sliced"])
def test_replayed_ticks_equal_those_that_are_run(refresh):
    runner = made(SCHEMA).cuda()
    replayed = TickRunner(runner, refresh)
    assert replayed.graphs > 0
    plain = TickRunner(copy.deepcopy(runner), refresh, graphs=False)
    assert plain.graphs == 0
    for tick in range(10):
        tokens = random_tokens(runner.plan, due(runner.plan, tick), torch.float32)
        tokens = {name: values.cuda() for name, values in tokens.items()}
        torch.testing.assert_close(replayed.tick(tokens), plain.tick(tokens))
        replayed.work()
        plain.work()
