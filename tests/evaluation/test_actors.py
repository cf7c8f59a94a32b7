"""Laws of actors: equal seeds act equally, a chunk is executed in order, black is black."""

import gymnasium
import numpy as np
import pytest

from canvas_robot.evaluation.actors import (
    ActorError,
    ExpertActor,
    PolicyActor,
    RandomActor,
    ZeroActor,
    blackened,
)
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import ActionChunk, History, load_binding
from canvas_robot.sim.canvas_wrapper import CanvasWrapper
from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.registration import REACH_ID

BINDING = load_binding(config_path("bindings", "widowx.yaml"))


class CountingPolicy:
    """Decides on chunks whose first component says which decision and which step it is."""

    binding = BINDING
    horizon = 3

    def reset(self, instruction):
        self.decisions, self.seen, self.told = 0, [], instruction

    def act(self, observation):
        self.seen.append(observation)
        self.decisions += 1
        values = np.zeros((self.horizon, 7), np.float32)
        values[:, 0] = 0.01 * self.decisions + 0.001 * np.arange(self.horizon)
        return ActionChunk("action", observation.tick, values)


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make(REACH_ID)
    yield CanvasWrapper(env, "widowx.yaml", "widowx_tiny.json")
    env.close()


def begun(actor, env, episode_id=90_000):
    _, info = env.reset(options={"episode_id": episode_id})
    actor.reset(env, info["instruction"])
    return actor


def test_equal_seeds_draw_equal_actions_and_leave_the_environment_alone(env):
    env.action_space.seed(3)
    drawn = []
    for seed in (7, 7, 8):
        actor = begun(RandomActor(seed), env)
        drawn.append(np.stack([actor.act(env) for _ in range(4)]))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    own = env.action_space.sample()
    env.action_space.seed(3)
    np.testing.assert_array_equal(own, env.action_space.sample())


@pytest.mark.parametrize("low, high, expected", [(-1, 1, 0.0), (0.2, 1, 0.2), (-3, -1, -1.0)])
def test_zero_is_the_action_of_the_space_that_is_nearest_to_zero(low, high, expected):
    class Shown:
        action_space = gymnasium.spaces.Box(low, high, (2,), np.float32)

    actor = ZeroActor()
    actor.reset(Shown(), "")
    action = actor.act(Shown())
    assert action in Shown.action_space and (action == np.float32(expected)).all()


def test_zero_needs_a_box():
    class Shown:
        action_space = gymnasium.spaces.Discrete(3)

    with pytest.raises(ActorError, match=r"expected an action space that is a Box, got Discrete"):
        ZeroActor().reset(Shown(), "")


def test_an_expert_acts_as_it_does_alone(env):
    actor = begun(ExpertActor(ReachExpert()), env)
    np.testing.assert_array_equal(actor.act(env), ReachExpert()(env))


def test_a_chunk_is_executed_step_by_step_before_the_next_decision(env):
    policy = CountingPolicy()
    actor = begun(PolicyActor(policy, steps_per_chunk=2), env)
    moves = []
    for _ in range(5):
        action = actor.act(env)
        moves.append(float(action[0]))
        env.step(action)
    np.testing.assert_allclose(moves, [0.010, 0.011, 0.020, 0.021, 0.030], atol=1e-6)
    assert [seen.tick for seen in policy.seen] == [0, 2, 4]
    assert policy.told == env.unwrapped.instruction


def test_what_is_left_of_a_chunk_is_not_executed_in_the_next_episode(env):
    policy = CountingPolicy()
    actor = begun(PolicyActor(policy, steps_per_chunk=3), env)
    actor.act(env)
    begun(actor, env)
    assert actor.act(env)[0] == pytest.approx(0.010)


@pytest.mark.parametrize("steps", [0, 4])
def test_more_steps_than_a_chunk_has_are_refused(steps):
    with pytest.raises(ActorError, match=f"expected 1 to 3, .* got {steps}"):
        PolicyActor(CountingPolicy(), steps)


def test_a_black_image_is_black_and_nothing_else_changes():
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    history = History(schema, BINDING)
    history.push("image", 1, np.full((64, 64, 3), 200, np.uint8))
    history.push("state", 1, np.full(7, 0.5, np.float32))
    seen = history.observe(0, 1)
    black = blackened(seen, BINDING)
    assert set(black.frames) == {"visual", "proprio"} and black.tick == seen.tick
    assert not black.frames["visual"].values.any() and seen.frames["visual"].values.all()
    assert black.frames["proprio"] is seen.frames["proprio"]
    np.testing.assert_array_equal(black.frames["visual"].missing, seen.frames["visual"].missing)


def test_a_policy_sees_black_pictures_where_it_is_asked_to(env):
    policy = CountingPolicy()
    actor = begun(PolicyActor(policy, black_image=True), env)
    actor.act(env)
    assert not policy.seen[0].frames["visual"].values.any()
    assert env.canvas_observation.frames["visual"].values.any()
