"""One path from observation to action, for the data set, the environment and the node.

All three build the same canvas and decide the same, over thirty consecutive control ticks of a
simulated arm, the first included, with regions of periods 2 and 3, camera and joint states stamped
at about 30 Hz with jitter. Each route only makes observations; the rest is one and the same code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch
from sensor_msgs.msg import Image, JointState

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.episode import Episode
from canvas_robot.data.rlds import write_rlds
from canvas_robot.kinematics import Arm, compose
from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.model_process import ModelProcess
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.resources import config_path
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.messages import joints_to_msg
from canvas_robot.ros.replay import SimulationClock
from canvas_robot.signals import History, Observation
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.reach import ReachTask
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.task import LIMITS
from tests.ros.conftest import JOINTS

TICKS, TICK_NS = 30, 200_000_000
RATE_HZ, JITTER_S = 30.0, 0.008
EARLY_NS = 60_000_000  # samples travel this long before the tick that may see them
INSTRUCTION = "touch the red cube"


@dataclass(frozen=True, eq=False)
class Stream:
    """What the robot's sensors gave.

    Stamps in ns from tick 0, pictures, joints (six angles and the finger).
    """

    stamps_ns: np.ndarray
    images: np.ndarray
    joints: np.ndarray

    def newest(self, tick: int) -> int:
        """Index of the newest sample at or before a tick."""
        return int(np.searchsorted(self.stamps_ns, tick * TICK_NS, side="right")) - 1


@pytest.fixture(scope="module")
def stream() -> Stream:
    random = np.random.default_rng(5)
    count = int(TICKS * TICK_NS / 1e9 * RATE_HZ)
    times_s = np.sort(np.arange(count) / RATE_HZ - 0.004 + random.uniform(-JITTER_S, 0.0, count))
    task = ReachTask()
    sim = WidowXSim(Arm.load("wx250s"), Scene(task.props))
    sim.reset(task.episode(3).poses)
    images, joints = [], []
    for i, time_s in enumerate(times_s):
        if i % 6 == 0:
            sim.command(compose(sim.target, random.uniform(-0.03, 0.03, 7), LIMITS))
        sim.step_until(float(time_s) + 0.02)
        images.append(sim.render(64, 64))
        joints.append(np.append(sim.joints, sim.finger))
    sim.close()
    return Stream(np.round(times_s * 1e9).astype(np.int64), np.stack(images), np.stack(joints))


@pytest.fixture(scope="module")
def recorded(stream, tmp_path_factory) -> Episode:
    """What a recorder at the control rate wrote, read back through TFDS.

    Pictures have passed through JPEG.
    """
    arm = Arm.load("wx250s")
    at = [stream.newest(tick) for tick in range(TICKS)]
    states = np.stack(
        [arm.measured_state(stream.joints[i, :6], float(stream.joints[i, 6])) for i in at]
    )
    stamps = np.arange(TICKS, dtype=np.int64) * TICK_NS
    episode = Episode(
        "one path", INSTRUCTION, stream.images[at], states, np.zeros((TICKS, 7), np.float32), stamps
    )
    return BridgeV2(write_rlds([episode], tmp_path_factory.mktemp("rlds")))[0]


@pytest.fixture(scope="module")
def schema_file(tmp_path_factory):
    """The tiny schema with two pictures two ticks apart, and three states three ticks apart."""
    schema = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    schema["layout"] |= {"T": 7, "t_current": 2}
    schema["regions"]["visual"] |= {"bounds": [1, 3, 0, 16, 0, 16], "period": 2}
    schema["regions"]["proprio"] |= {"bounds": [0, 3, 16, 17, 0, 1], "period": 3}
    schema["regions"]["action"]["bounds"] = [2, 6, 16, 17, 1, 3]
    path = tmp_path_factory.mktemp("schema") / "periods.json"
    path.write_text(json.dumps(schema))
    return path


@pytest.fixture(scope="module")
def patient_binding(tmp_path_factory):
    """The binding for arms that do not obey; samples are good for 10 s: slow machines pass too."""
    text = config_path("bindings", "replay_joints.yaml").read_text()
    path = tmp_path_factory.mktemp("binding") / "patient.yaml"
    path.write_text(text.replace("max_age_s: 2.0", "max_age_s: 10.0"))
    return path


@dataclass(frozen=True, eq=False)
class Route:
    """The canvas (N, D) and the action chunk of each tick."""

    canvases: list[torch.Tensor]
    actions: list[np.ndarray]


def recording(policy: CanvasPolicy) -> list[torch.Tensor]:
    """A list that receives the canvas of every decision."""
    canvases: list[torch.Tensor] = []
    decide = policy.act

    def act(observation, going_on=None):
        chunk = decide(observation, going_on)
        canvases.append(policy.last_canvas[0])
        return chunk

    policy.act = act
    return canvases


def observations(model: ModelProcess) -> list[Observation]:
    """A list that receives what the node asks the model about."""
    asked: list[Observation] = []
    decide = model.act

    def act(observation, going_on=None):
        asked.append(observation)
        return decide(observation, going_on)

    model.act = act
    return asked


def new_policy(schema_file) -> CanvasPolicy:
    policy = assemble_policy(PolicySettings(schema=str(schema_file)))
    policy.reset(INSTRUCTION)
    return policy


@pytest.fixture(scope="module")
def from_dataset(recorded, schema_file) -> Route:
    policy = new_policy(schema_file)
    canvases, actions = recording(policy), []
    history = History(policy.schema, policy.binding)
    for tick, stamp in enumerate((recorded.stamps_ns + TICK_NS).tolist()):  # a stamp of 0 is none
        history.push("image", stamp, recorded.images[tick])
        history.push("state", stamp, recorded.states[tick])
        actions.append(policy.act(history.observe(tick, stamp)).values)
    return Route(canvases, actions)


class RecordedEnv(gymnasium.Env):
    """The recorded steps as an environment: whatever the action, the next step comes."""

    observation_space = gymnasium.spaces.Dict(
        image=gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8),
        state=gymnasium.spaces.Box(-4, 4, (7,), np.float32),
    )
    action_space = gymnasium.spaces.Box(-1, 1, (7,), np.float32)

    def __init__(self, episode: Episode) -> None:
        self._episode, self._step = episode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {"instruction": self._episode.instruction}

    def step(self, action):
        self._step += 1
        return self._observe(), 0.0, False, self._step == TICKS - 1, {}

    def _observe(self):
        return {
            "image": self._episode.images[self._step],
            "state": self._episode.states[self._step],
        }


def test_the_environment_takes_the_data_sets_path(recorded, schema_file, from_dataset):
    policy = new_policy(schema_file)
    canvases, actions = recording(policy), []
    env = RecordedEnv(recorded)
    observation, info = env.reset(seed=0)
    policy.reset(info["instruction"])
    ended = False
    while not ended:
        chunk = policy.act(observation)
        actions.append(chunk.values)
        observation, _, _, ended, _ = env.step(chunk.values[0])
    actions.append(policy.act(observation).values)
    assert_same(Route(canvases, actions), from_dataset)


@pytest.mark.timeout(180)
def test_the_node_takes_the_data_sets_path(
    stream, recorded, schema_file, from_dataset, patient_binding, start_policy, monitor
):
    node = start_policy(
        autostart=True,
        use_sim_time=True,
        schema=str(schema_file),
        binding=str(patient_binding),
        instruction=INSTRUCTION,
        decision_timeout=10.0,
    ).node
    observed = observations(node._session.model)
    images = monitor.node.create_publisher(Image, "camera/image_raw", 5)
    joints = monitor.node.create_publisher(JointState, "joint_states", 10)
    clock = SimulationClock(monitor, rate=1.0)

    def ready() -> bool:
        clock.advance_to(clock.now_ns + TICK_NS)
        return bool(
            monitor.statuses and images.get_subscription_count() and joints.get_subscription_count()
        )

    assert any(ready() for _ in range(100))
    grid_ns = monitor.statuses[-1].values["stamp_ns"]
    first_ns = grid_ns + -(-(clock.now_ns + 2 * EARLY_NS - grid_ns) // TICK_NS) * TICK_NS
    chosen = {stream.newest(tick): tick for tick in range(TICKS)}  # these are what the recorder saw
    events = [(int(stamp) + first_ns, i) for i, stamp in enumerate(stream.stamps_ns)]
    for tick in range(TICKS):
        while events and events[0][0] <= first_ns + tick * TICK_NS:
            stamp, i = events.pop(0)
            clock.advance_to(stamp - EARLY_NS)
            picture = recorded.images[chosen[i]] if i in chosen else stream.images[i]
            joints.publish(joints_to_msg(JOINTS, stream.joints[i], stamp))
            images.publish(image_to_msg(picture, stamp, "camera"))
        clock.advance_to(first_ns + tick * TICK_NS)
        decided = clock.creep_until(
            lambda k=tick: monitor.statuses[-1].values["tick"] == k,
            first_ns + (tick + 1) * TICK_NS - EARLY_NS,
        )
        assert decided, (tick, monitor.statuses[-1])
    actions = [np.float32(s.values["action_chunk"]) for s in monitor.statuses if s.active]
    policy = new_policy(schema_file)
    canvases = recording(policy)
    for observation, action in zip(observed, actions, strict=True):
        np.testing.assert_array_equal(policy.act(observation).values, action)
    assert_same(Route(canvases, actions), from_dataset)


def assert_same(route: Route, other: Route) -> None:
    assert (
        len(route.canvases)
        == len(other.canvases)
        == len(route.actions)
        == len(other.actions)
        == TICKS
    )
    for tick in range(TICKS):
        assert torch.equal(route.canvases[tick], other.canvases[tick]), f"canvas of tick {tick}"
        assert np.array_equal(route.actions[tick], other.actions[tick]), f"action of tick {tick}"
    assert not torch.equal(route.canvases[0], route.canvases[TICKS - 1])
