"""A recorded bag, decided again: does the same checkpoint come to the same actions?"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader, ReaderError

from canvas_robot.kinematics.arm import Arm
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.ros.decisions import DECISION_STATUS
from canvas_robot.ros.description import arm_of
from canvas_robot.ros.findings import absolute
from canvas_robot.ros.inputs import Inputs
from canvas_robot.ros.messages import values_from_msg
from canvas_robot.ros.status import going_on_from
from canvas_robot.signals import Binding, History, SignalError

_FIRST = 20  # messages of a topic: as many as may be black, or early, while a robot starts


class BagError(ValueError):
    """A bag cannot be read, or holds nothing to verify."""


@dataclass(frozen=True)
class Verified:
    """How a bag's decisions compare with deciding again.

    decisions: with an action chunk; equal: bit for bit as recorded. missing: decisions whose
    samples are not all in the bag, which therefore cannot be repeated. first: what differs first.
    """

    decisions: int
    equal: int
    missing: int
    first: str = ""


@dataclass
class Stream:
    """Samples of one signal in the order of their stamps, and when each came."""

    stamps_ns: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)
    fed: int = 0


class BagInputs:
    """Stands in for node and control loop of `Inputs`: samples come out of a bag.

    refused: of each signal, how many messages were, as by the node, and why the last.

    name: of the node, in whose namespace relative topics are. keep: what is kept of a sample.
    """

    def __init__(
        self,
        binding: Binding,
        arm: Arm,
        image_transport: str,
        name: str,
        keep: Callable[[np.ndarray], np.ndarray] = np.array,
    ) -> None:
        self._namespace, self._keep = absolute(name).rpartition("/")[0], keep
        self._signals = binding.signals
        self.streams: dict[str, Stream] = defaultdict(Stream)
        self.refused: dict[str, tuple[int, str]] = {}
        self.received = defaultdict(list)  # by topic: its type, who takes it, and how
        self._now_ns = 0
        Inputs(self, binding, arm, self, image_transport)

    def create_subscription(
        self, msg_type: type, topic: str, callback, qos, raw: bool, **options
    ) -> None:
        full = topic if topic.startswith("/") else f"{self._namespace}/{topic}"
        self.received[full].append((msg_type, callback, raw))

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self._now_ns))

    def take(self, topic: str, received_ns: int, data: bytes) -> None:
        """A message of the bag; one of another topic is passed over."""
        for msg_type, callback, raw in self.received.get(topic, ()):
            self._now_ns = received_ns
            callback(data if raw else deserialize_message(data, msg_type))

    def sample(self, signal: str, stamp_ns: int, value: np.ndarray, waited_ns: int = 0) -> None:
        try:
            value = self._signals[signal].checked(signal, value)
        except SignalError as error:
            self.fault(signal, str(error))
            return
        stream = self.streams[signal]
        if not stream.stamps_ns or stamp_ns > stream.stamps_ns[-1]:
            stream.stamps_ns.append(stamp_ns)
            stream.values.append(self._keep(value))
            stream.received_ns.append(self._now_ns)

    def fault(self, signal: str, detail: str) -> None:
        count, _ = self.refused.get(signal, (0, ""))
        self.refused[signal] = count + 1, detail


def is_bag(path: Path) -> bool:
    """Whether a folder is a rosbag2 recording, whole or not."""
    return (path / "metadata.yaml").is_file() or any(path.glob("*.mcap"))


@contextmanager
def opened(folder: Path) -> Iterator[Reader]:
    """A bag to read; raises BagError for whatever is wrong with its files, then or later."""
    try:
        with Reader(folder) as reader:
            yield reader
    except BagError:
        raise
    except Exception as error:  # of a damaged file a reader may raise anything
        told = str(error) if isinstance(error, ReaderError) else f"{type(error).__name__}: {error}"
        raise BagError(
            f"{folder}: expected a whole bag, got {told.rstrip('.')}; of a recording that was "
            f"ended by force, `mcap recover` saves what is in its .mcap file, and `ros2 bag "
            f"reindex -s mcap` makes its metadata.yaml anew"
        ) from error


def refused_from_the_first(
    folder: Path, binding: Binding, image_transport: str, name: str
) -> dict[str, str]:
    """Why, by signal, a node would take none of the first messages of a bag. Raises BagError."""
    inputs = BagInputs(binding, arm_of(binding), image_transport, name)
    with opened(folder) as reader:
        for connection in reader.connections:
            if connection.topic in inputs.received:
                messages = reader.messages(connections=[connection])
                for _, received_ns, data in itertools.islice(messages, _FIRST):
                    inputs.take(connection.topic, received_ns, data)
    refused = {signal: why for signal, (_, why) in inputs.refused.items()}
    return {s: why for s, why in refused.items() if not inputs.streams[s].stamps_ns}


def verify_bag(
    folder: Path, policy: CanvasPolicy, name: str = "policy", image_transport: str = "raw"
) -> Verified:
    """Feeds a bag's samples to the policy as the node did, and compares every action chunk.

    Each decision says which sample it saw last; the policy is shown these and all before them.
    Threads are set as the node had them: rounding depends on it. Raises BagError.
    """
    arm = arm_of(policy.binding)
    inputs = BagInputs(policy.binding, arm, image_transport, name)
    decisions = []
    with opened(folder) as reader:
        for connection, received_ns, data in reader.messages():
            inputs.take(connection.topic, received_ns, data)
            if connection.topic == f"/{name.strip('/')}/status":
                status = deserialize_message(data, DiagnosticStatus)
                if status.name == DECISION_STATUS:
                    decisions.append(status)
    chosen = [values for values in map(_decision, decisions) if "action_chunk" in values]
    if not chosen:
        raise BagError(
            f"{folder}: expected decisions with an action chunk on /{name.strip('/')}/status, got "
            f"{len(decisions)} holds; record while the node is active"
        )
    return _repeat(policy, inputs.streams, chosen)


def _decision(status: DiagnosticStatus) -> dict[str, object]:
    """A status's values; the instruction as it is, though it may look like a number."""
    instruction = {item.key: item.value for item in status.values}.get("instruction", "")
    return {**values_from_msg(status), "instruction": instruction}


def _repeat(
    policy: CanvasPolicy, streams: dict[str, Stream], decisions: list[dict[str, object]]
) -> Verified:
    torch.set_num_threads(int(decisions[0]["threads"]))
    history = History(policy.schema, policy.binding)
    equal = missing = 0
    first, begun = "", False
    for values in decisions:
        known = _feed(policy, history, streams, values)
        if values["tick"] == 0:
            begun = known
            if known:
                policy.reset(values["instruction"])
                history.reset(values["stamp_ns"])
        if not (known and begun):
            missing, begun = missing + 1, False  # up to the next reset
            continue
        observation = history.observe(values["tick"], values["stamp_ns"])
        chunk = policy.act(observation, going_on_from(values))
        policy.work()
        recorded = np.float32(values["action_chunk"])
        if np.array_equal(recorded, chunk.values):
            equal += 1
        elif not first:
            off = float(np.abs(recorded - chunk.values).max())
            first = f"decision {values['index']}: actions differ by up to {off:.3g}"
    return Verified(len(decisions), equal, missing, first)


def _feed(
    policy: CanvasPolicy,
    history: History,
    streams: dict[str, Stream],
    values: dict[str, object],
) -> bool:
    """Shows the history all samples up to those that a decision saw; False where one is missing."""
    complete = True
    for region in policy.binding.observed_regions():
        newest_ns = values.get(f"stamp_ns.{region}")
        signal = policy.binding.regions[region].signal
        stream = streams[signal]
        if newest_ns is None:
            continue
        end = bisect_right(stream.stamps_ns, newest_ns)
        complete &= end > 0 and stream.stamps_ns[end - 1] == newest_ns
        for i in range(stream.fed, end):
            history.push(signal, stream.stamps_ns[i], stream.values[i])
        stream.fed = max(stream.fed, end)
    return complete
