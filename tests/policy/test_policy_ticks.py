"""Laws of a policy over ticks: what it keeps changes no action, and it says what it acted on."""

import itertools

import numpy as np
import pytest
import torch

from canvas_robot.policy.policy import CanvasPolicy, NoInstructionError
from canvas_robot.policy.ticks import RefreshError
from canvas_robot.schema import CanvasSchema, Connection
from canvas_robot.signals import History

SLOW = {"visual": {"period": 3}, "goal": {"period": 6}}
TICK_NS = 200_000_000


def trained_like(policy: CanvasPolicy) -> CanvasPolicy:
    """With loops that do something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for block in policy.model.runner.transformer.transformer_blocks:
            block.loop_gate.uniform_(0.3, 1.0)
            block.loop_emb.normal_(std=0.3)
            block.loop_emb_enc.normal_(std=0.3)
    return policy


def observations(policy, samples, ticks):
    history = History(policy.schema, policy.binding)
    for tick in ticks:
        for name, value in samples(tick).items():
            history.push(name, (tick + 1) * TICK_NS, value)
        yield history.observe(tick, (tick + 1) * TICK_NS)


def joint_action(policy, observation):
    """The action of one forward over everything, nothing kept."""
    with torch.inference_mode():
        normalised = policy.model(policy.canvas(observation))[0]
    return policy.model.action.to_units(normalised)


def close(first, second):
    return np.allclose(first, second, rtol=1e-4, atol=1e-6)


def test_with_everything_kept_that_can_be_every_action_is_that_of_a_joint_forward(
    make_policy, samples
):
    policy = trained_like(make_policy(**SLOW))
    policy.reset("lift")
    actions = []
    for observation in observations(policy, samples, range(13)):
        actions.append(policy.act(observation).values)
        assert close(actions[-1], joint_action(policy, observation))
    assert not any(close(a, b) for a, b in itertools.pairwise(actions))


def test_a_tick_computes_only_rows_that_changed(make_policy, samples):
    policy = make_policy(**SLOW)
    policy.reset("lift")
    seen = []
    inner = policy.model.runner._loop
    policy.model.runner._loop = lambda *args: seen.append(len(args[2].rows)) or inner(*args)
    rows = {r.name: r.stop - r.start for r in policy.model.plan.regions}
    for observation in observations(policy, samples, range(4)):
        seen.clear()
        policy.act(observation)
        fast = rows["proprio"] + rows["action"]
        whole = sum(rows.values())
        assert set(seen) == {whole if observation.tick % 3 == 0 else fast}


def test_it_says_how_old_what_it_acted_on_is_in_ticks_and_stamps(make_policy, samples):
    policy = make_policy(**SLOW)
    policy.reset("lift")
    for observation in observations(policy, samples, range(8)):
        chunk = policy.act(observation)
        assert chunk.ages == {"visual": observation.tick % 3, "proprio": 0}
        seen = observation.tick - observation.tick % 3
        assert chunk.stamps_ns["visual"] == (seen + 1) * TICK_NS


def test_in_slices_an_action_is_the_joint_one_of_older_pictures_and_says_so(make_policy, samples):
    inline = make_policy(**SLOW)
    sliced = CanvasPolicy(
        inline.model,
        inline.schema,
        inline.binding,
        inline.statistics,
        inline.source,
        inline.sha256,
        inline.trained,
        refresh="sliced",
    )
    trained_like(sliced)
    sliced.reset("lift")
    seen, ages = [], []
    for observation in observations(sliced, samples, range(13)):
        seen.append(observation)
        chunk = sliced.act(observation)
        sliced.work()
        age = chunk.ages["visual"]
        ages.append(age)
        then = seen[observation.tick - age].frames["visual"]
        assert chunk.stamps_ns["visual"] == then.stamps_ns[-1]
        mixed = type(observation)(
            observation.tick, observation.stamp_ns, observation.frames | {"visual": then}
        )
        assert close(chunk.values, joint_action(sliced, mixed))
    assert ages == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 3]


@pytest.mark.parametrize("refresh", ["inline", "sliced"])
def test_a_new_goal_in_mid_episode_counts_at_once(make_policy, samples, refresh):
    first = make_policy(**SLOW)
    policy = CanvasPolicy(
        first.model, first.schema, first.binding, first.statistics, "tiny", {}, False, refresh
    )
    with pytest.raises(NoInstructionError):
        policy.instruct("push")
    policy.reset("lift")
    for observation in observations(policy, samples, range(5)):
        if observation.tick == 4:
            policy.instruct("push")
        values = policy.act(observation).values
    assert close(values, joint_action(policy, observation))
    with pytest.raises(ValueError):
        policy.instruct("\n")
    assert policy.instruction == "push"


def test_a_region_that_the_action_does_not_need_is_neither_encoded_nor_computed(
    make_policy, samples
):
    policy = make_policy()
    schema = policy.schema
    schema.topology.connections = [
        Connection("action", "proprio"),
        Connection("action", "action"),
        Connection("visual", "action"),
    ]
    policy = CanvasPolicy.untrained(
        CanvasSchema(schema.layout, schema.topology), policy.binding, policy.statistics, loops=1
    )
    encoder = policy.model.codec("visual").encoder
    encoder.register_forward_hook(lambda *_: pytest.fail("the picture was encoded"))
    policy.reset("lift")
    chunk = policy.act(samples(0))
    assert set(chunk.ages) == {"proprio"}


def test_ticks_must_go_forward_and_slices_need_a_slow_region(make_policy, samples):
    policy = make_policy(**SLOW)
    policy.reset("lift")
    (first, second) = observations(policy, samples, range(2))
    policy.act(second)
    with pytest.raises(RefreshError, match="expected a number above 1, got 0"):
        policy.act(first)
    policy.reset("lift")
    policy.act(first)
    plain = make_policy()
    with pytest.raises(RefreshError, match="expected a region with a period above 1"):
        CanvasPolicy(
            plain.model, plain.schema, plain.binding, plain.statistics, "tiny", {}, False, "sliced"
        )


def test_a_slow_region_that_reads_a_faster_one_is_warned_of(make_policy, caplog):
    schema = make_policy(**SLOW).schema
    schema.topology.connections.append(Connection("visual", "proprio"))
    base = make_policy()
    with caplog.at_level("WARNING"):
        CanvasPolicy.untrained(schema, base.binding, base.statistics, loops=1)
    assert "region 'visual': period 3 saves nothing, for it reads 'proprio'" in caplog.text


@pytest.mark.parametrize("where", ["codec", "block", "head"])
def test_a_decision_that_failed_half_way_leaves_nothing_that_is_acted_on(
    make_policy, samples, monkeypatch, where
):
    policy = trained_like(make_policy(**SLOW))
    policy.reset("lift")
    seen = observations(policy, samples, range(5))
    policy.act(next(seen))
    owner, name = {
        "codec": (policy.model.codec("proprio"), "encode"),
        "block": (policy.model.runner, "_loop"),
        "head": (policy.model.action, "decode"),
    }[where]
    for _ in range(3):  # the second and third would find these frames unchanged
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                policy.act(next(seen))
    observation = next(seen)
    assert close(policy.act(observation).values, joint_action(policy, observation))


def test_a_slice_that_failed_is_not_read(make_policy, samples, monkeypatch):
    base = make_policy(**SLOW)
    policy = CanvasPolicy(
        base.model, base.schema, base.binding, base.statistics, "tiny", {}, False, "sliced"
    )
    policy.reset("lift")
    for observation in observations(policy, samples, range(8)):
        chunk = policy.act(observation)
        if observation.tick == 4:
            with monkeypatch.context() as patch:
                patch.setattr(policy.model.runner, "_loop", lambda *args: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    policy.work()
        elif observation.tick == 5:  # all of it anew
            assert chunk.ages["visual"] == 0
            assert close(chunk.values, joint_action(policy, observation))
