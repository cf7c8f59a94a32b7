"""A recorded bag as an episode to learn from: its samples at the control ticks of a binding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import yaml
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64, String

from canvas_robot.data.episode import Episode
from canvas_robot.data.layout import CAMERAS
from canvas_robot.data.rlds import STEP_NS
from canvas_robot.data.transitions import composed_change
from canvas_robot.kinematics.rule import gripper_from_state
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.ros.bag import BagError, BagInputs, Stream, opened
from canvas_robot.ros.description import arm_of
from canvas_robot.ros.findings import absolute
from canvas_robot.ros.measured import state_signal
from canvas_robot.signals import Binding, binding_from_yaml
from canvas_robot.signals.binding import RosImage
from canvas_robot.signals.history import newest_at

PICTURE = (256, 256)  # (height, width): Bridge V2's


def bag_episode(
    folder: Path,
    binding: Binding | None = None,
    name: str = "policy",
    image_transport: str = "raw",
    instruction: str = "",
    left_out: Callable[[list[str]], object] = lambda signals: None,
    tell: Callable[[str], object] = lambda line: None,
) -> Episode:
    """The demonstration that a bag holds, of whoever led the arm.

    A step is a control tick, from the first for which every signal has a sample. It shows of each
    signal the newest sample at or before it, as the node does; pictures are squashed to Bridge V2's
    size. Its action is how the measured pose changed until the next tick, and the gripper as it was
    commanded by then, or as it is measured then where nobody commanded.

    Args:
        folder: of the bag.
        binding: what its topics are; None: the one that its metadata hold.
        name: of the policy node when it was recorded, with its namespace.
        image_transport: as the node's parameter.
        instruction: what is shown, in words; empty: as the metadata say, or the last instruction.
        left_out: told the signals that the bag's binding hears and no step has a place for.
        tell: told in a line what else of the bag is not in the episode.
    Raises:
        BagError: it cannot be read, the binding that it holds is none, or says not where each
            camera is stored, nobody says what is shown, it holds less than two steps, or a signal
            pauses in it.
    """
    about = about_bag(folder)
    if binding is None:
        if "canvas_robot.binding" not in about:
            raise BagError(f"{folder}: expected a binding in its metadata, got none; name one")
        binding = _binding_of(folder, about["canvas_robot.binding"])
    if binding.tick_ns != STEP_NS:
        raise BagError(
            f"{folder}: control_rate_hz: expected 5, for the data are stored in steps of 0.2 s "
            f"without stamps, got {binding.control_rate_hz:g}"
        )
    cameras = _cameras(folder, binding)
    kept = (*cameras, state_signal(binding))
    left_out([signal for signal in binding.sources.ros if signal not in kept])
    inputs = BagInputs(binding, arm_of(binding), image_transport, name, _small)
    commanded, told = Stream(), [""]
    name = absolute(name)
    with opened(folder) as reader:
        topics = {connection.topic for connection in reader.connections}
        for connection, received_ns, data in reader.messages():
            inputs.take(connection.topic, received_ns, data)
            if connection.topic == f"{name}/gripper":
                commanded.stamps_ns.append(received_ns)
                commanded.values.append(deserialize_message(data, Float64).data)
            elif connection.topic == f"{name}/instruction":
                told.append(deserialize_message(data, String).data)
    words = instruction or about.get("canvas_robot.instruction", "") or told[-1]
    if not words.strip():
        raise BagError(
            f"{folder}: expected an instruction, got none in its metadata or on "
            f"{name}/instruction; say what it shows (--instruction)"
        )
    heard = (
        f"of the topics {', '.join(sorted(inputs.received))}; it has {', '.join(sorted(topics))}"
    )
    _require_samples(folder, kept, inputs, heard)
    shown = {signal: inputs.streams[signal] for signal in kept}
    for line in (*_refusals(kept, inputs), *_cuts(shown, binding)):
        tell(line)
    return _episode(folder, binding, cameras, shown, commanded, words)


def _require_samples(folder: Path, signals: Sequence[str], inputs: BagInputs, heard: str) -> None:
    missing = [signal for signal in signals if not inputs.streams[signal].stamps_ns]
    if not missing:
        return
    why = "; ".join(_refusals(missing, inputs)) or (
        f"{heard}; name the node with its namespace (--name), the image transport of all cameras, "
        f"or another binding"
    )
    raise BagError(
        f"{folder}: expected samples of {' and '.join(map(repr, signals))}, {missing} lack, {why}"
    )


def _refusals(signals: Iterable[str], inputs: BagInputs) -> list[str]:
    """Of each signal, how many messages are not taken and why the last is not."""
    lines = []
    for signal in signals:
        if signal in inputs.refused:
            count, why = inputs.refused[signal]
            lines.append(
                f"{count} messages of signal {signal!r} are refused, as by the node: {why}"
            )
    return lines


def _cuts(shown: dict[str, Stream], binding: Binding) -> list[str]:
    """What begins so late, or ends so early, that it would be a pause anywhere else."""
    first_ns = min(stream.stamps_ns[0] for stream in shown.values())
    last_ns = max(stream.stamps_ns[-1] for stream in shown.values())
    cuts = []
    for signal, stream in shown.items():
        late_s = (stream.stamps_ns[0] - first_ns) / 1e9
        early_s = (last_ns - stream.stamps_ns[-1]) / 1e9
        limit_s = binding.signals[signal].max_age_s
        if late_s > limit_s:
            cuts.append(f"signal {signal!r} begins {late_s:.1f} s late: the episode begins with it")
        if early_s > limit_s:
            cuts.append(f"signal {signal!r} ends {early_s:.1f} s early: the episode ends with it")
    return cuts


def _small(value: np.ndarray) -> np.ndarray:
    """A picture at the stored size: a bag of larger ones may not fit into memory."""
    return np.array(squash(value, PICTURE) if value.ndim == 3 else value)


def about_bag(folder: Path) -> dict[str, str]:
    """What a bag's metadata say of it. Raises BagError where there are none."""
    file = folder / "metadata.yaml"
    if not file.is_file():
        inside = sorted(bag.parent.name for bag in folder.glob("*/metadata.yaml"))
        hint = f"; it holds {len(inside)}: give {folder}/*" if inside else ""
        if not folder.exists():
            hint = "; there is no such folder"
        elif folder.is_file():
            hint = "; give the folder that it is in"
        raise BagError(f"{folder}: expected the folder of a rosbag2 recording{hint}")
    try:
        said = yaml.safe_load(file.read_text())["rosbag2_bagfile_information"]
        return said.get("custom_data") or {}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise BagError(
            f"{file}: expected what a rosbag2 recording says of itself, got "
            f"{type(error).__name__}: {error}"
        ) from error


def _binding_of(folder: Path, text: str) -> Binding:
    try:
        return binding_from_yaml(text)
    except ValueError as error:
        raise BagError(
            f"{folder}: the binding in its metadata: {error}; name another (--binding)"
        ) from error


def _episode(
    folder: Path,
    binding: Binding,
    cameras: dict[str, str],
    shown: dict[str, Stream],
    commanded: Stream,
    words: str,
) -> Episode:
    state = state_signal(binding)
    first_ns = max(stream.stamps_ns[0] for stream in shown.values())
    last_ns = min(stream.stamps_ns[-1] for stream in shown.values())
    ticks = np.arange(first_ns, last_ns + 1, binding.tick_ns, dtype=np.int64)
    if len(ticks) < 2:
        seconds = (last_ns - first_ns) / 1e9
        raise BagError(f"{folder}: expected two control ticks at least, got {seconds:.2f} s")
    at = {signal: _at_ticks(folder, signal, shown[signal], ticks, binding) for signal in shown}
    states = np.float32(at[state])
    gripper = np.array([gripper_from_state(state) for state in states[1:, 6].tolist()])
    if commanded.stamps_ns:  # without a header: it counts from when it came, as states then did
        clock = np.interp(ticks[1:], shown[state].stamps_ns, shown[state].received_ns)
        for step, moment in enumerate(clock):
            if (newest := newest_at(commanded.stamps_ns, moment)) >= 0:
                gripper[step] = commanded.values[newest]
    gripper = np.clip(gripper, 0.0, 1.0)[:, None]
    actions = np.concatenate([composed_change(states), gripper], axis=1)
    pictures = ((stored, np.stack(at[signal][:-1])) for signal, stored in cameras.items())
    (camera, images), *further = pictures
    return Episode(
        folder.name,
        words,
        images,
        states[:-1],
        np.float32(actions),
        ticks[:-1],
        camera,
        dict(further),
    )


def _cameras(folder: Path, binding: Binding) -> dict[str, str]:
    """The name that each camera's signal is stored under: that which the binding reads it by.

    Where it reads no camera from a data set, the first is stored, as `image_0`. Raises BagError
    where there is no camera, or a name is none, or that of two.
    """
    signals = [s for s, source in binding.sources.ros.items() if isinstance(source, RosImage)]
    if not signals:
        raise BagError(f"{folder}: expected a camera in the binding's sources.ros, got none")
    read = binding.sources.dataset
    stored = {signal: read[signal] for signal in signals if signal in read}
    if len(set(stored.values()) & set(CAMERAS)) < len(stored):
        raise BagError(
            f"{folder}: sources.dataset: expected one of {', '.join(CAMERAS)} for each camera, and "
            f"each once, got {stored}; mend the binding"
        )
    return stored or {signals[0]: CAMERAS[0]}


def _at_ticks(
    folder: Path, signal: str, stream: Stream, ticks: np.ndarray, binding: Binding
) -> list[np.ndarray]:
    """The newest sample at or before each tick. Raises BagError where the node would have held."""
    newest = [newest_at(stream.stamps_ns, tick) for tick in ticks.tolist()]
    ages_s = (ticks - np.array(stream.stamps_ns)[newest]) / 1e9
    oldest, limit_s = int(np.argmax(ages_s)), binding.signals[signal].max_age_s
    if ages_s[oldest] > limit_s:
        after_s = (ticks[oldest] - ticks[0]) / 1e9
        raise BagError(
            f"{folder}: signal {signal!r} pauses {after_s:.1f} s after its beginning, for more "
            f"than {limit_s} s (max_age_s); record it again, or raise that in the binding"
        )
    return [stream.values[index] for index in newest]
