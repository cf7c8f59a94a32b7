"""Laws of quality of service: parameters change it, and what the middleware says of it holds."""

from __future__ import annotations

import contextlib

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hypothesis import given
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from canvas_robot.resources import config_path
from canvas_robot.ros.parameters import ParameterError, parameters_of_file
from canvas_robot.ros.qos import check_overrides, unmet, untaken_overrides
from tests.ros.conftest import PATIENCE_S, TIMEOUT_S

CAMERA = "qos_overrides./camera/image_raw.subscription"
POSE = "qos_overrides./policy/target_pose.publisher"
STAND_IN = {
    "autostart": True,
    "stand_in": "constant",
    "instruction": "touch it",
    "decision_timeout": PATIENCE_S,
}
MS = 1_000_000


@contextlib.contextmanager
def node_given(domain_id: int, **parameters):
    """A node that declares nothing, started with these parameters."""
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = rclpy.create_node("policy", context=context, parameter_overrides=overrides)
        yield node
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)


@pytest.fixture
def patient(tmp_path) -> str:
    """A binding whose signals may be old: only what was requested of the middleware can hold."""
    text = config_path("bindings", "widowx.yaml").read_text()
    assert "max_age_s: 0.5" in text
    path = tmp_path / "patient.yaml"
    path.write_text(text.replace("max_age_s: 0.5", "max_age_s: 60.0"))
    return str(path)


@pytest.fixture
def offer(robot):
    """Gives the robot a camera that offers another quality of service; the old one is silent."""

    def change(**policies) -> None:
        qos = QoSProfile(depth=1, **policies)
        robot.images = robot.node.create_publisher(Image, "camera/image_raw", qos)

    return change


def active(monitor, since: int = 0) -> bool:
    return any(status.active for status in monitor.statuses[since:])


def wait_for_hold(monitor, words: str, since: int = 0):
    """The first hold whose message says so."""

    def found():
        return [s for s in monitor.statuses[since:] if not s.active and words in s.message]

    assert monitor.wait_for(found, TIMEOUT_S), [s.message for s in monitor.statuses]
    return found()[0]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        ("reliability", "reliable"),
        ("reliability", "best_available"),
        ("history", "keep_all"),
        ("durability", "transient_local"),
        ("liveliness", "manual_by_topic"),
        ("depth", 1),
        ("deadline", 0),
        ("liveliness_lease_duration", 500 * MS),
    ],
)
def test_what_ros_knows_passes(domain_id, policy, value):
    with node_given(domain_id, **{f"{CAMERA}.{policy}": value}) as node:
        check_overrides(node)


@pytest.mark.parametrize(
    ("policy", "value", "words"),
    [
        ("reliability", "perhaps", "one of system_default, reliable, best_effort"),
        ("reliability", 1, "one of"),
        ("durability", "unknown", "one of"),
        ("depth", 0, "a whole number of messages, at least 1"),
        ("depth", True, "a whole number"),
        ("deadline", 0.1, "nanoseconds, a whole number from 1000000"),
        ("deadline", 100, "nanoseconds"),
        ("liveliness_lease_duration", -1, "nanoseconds"),
    ],
)
def test_another_value_is_refused_with_its_name_what_was_expected_and_what_came(
    domain_id, policy, value, words
):
    name = f"{CAMERA}.{policy}"
    with node_given(domain_id, **{name: value}) as node:
        with pytest.raises(ParameterError) as raised:
            check_overrides(node)
    assert str(raised.value).startswith(f"{name}: expected {words}")
    assert str(raised.value).endswith(f"got {value!r}")


def test_a_value_that_ros_does_not_know_fails_configure_before_the_model_is_loaded(
    start_policy, capfd
):
    node = start_policy(stand_in="constant", **{f"{CAMERA}.reliability": "perhaps"}).node
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    told = capfd.readouterr().err
    assert f"ParameterError: {CAMERA}.reliability: expected one of" in told
    assert "loading" not in told


def test_the_overrides_of_a_parameters_file_are_found_under_any_node(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(
        "/**/policy: {ros__parameters: {dtype: float32, qos_overrides: "
        "{/camera/image_raw: {subscription: {deadline: 200000000}}}}}"
    )
    assert parameters_of_file(file) == {
        "dtype": "float32",
        f"{CAMERA}.deadline": 200 * MS,
    }


@pytest.mark.parametrize(
    ("key", "name", "means"),
    [
        ("/**", "/policy", True),
        ("/**/policy", "/policy", True),
        ("/**/policy", "/left/policy", True),
        ("policy", "/policy", True),
        ("/policy", "/left/policy", False),
        ("/*/policy", "/left/policy", True),
        ("/*/policy", "/policy", False),
        ("usb_cam", "/policy", False),
        ("/**/policy2", "/policy", False),
    ],
)
def test_an_entry_of_a_file_is_about_the_nodes_that_it_means(tmp_path, key, name, means):
    file = tmp_path / "nodes.yaml"
    file.write_text(f"{key}: {{ros__parameters: {{dry_run: true}}}}")
    if means:
        assert parameters_of_file(file, name) == {"dry_run": True}
    else:
        with pytest.raises(ParameterError, match=f"expected an entry for {name}, got /"):
            parameters_of_file(file, name)


def test_of_entries_about_one_node_the_later_wins(tmp_path):
    file = tmp_path / "nodes.yaml"
    entry = "{{ros__parameters: {{execution: {}}}}}"
    file.write_text(f"/policy: {entry.format('rtc')}\n/**: {entry.format('first')}\n")
    assert parameters_of_file(file) == {"execution": "first"}


@pytest.mark.parametrize("text", ["- 1", "policy: {a: 1}", "policy: {ros__parameters: }", "a: ]"])
def test_a_file_that_is_no_parameters_file_is_refused(tmp_path, text):
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(ParameterError, match=r"policy\.yaml: expected a ROS parameters file"):
        parameters_of_file(file)


@pytest.mark.parametrize("name, found", [("nowhere.yaml", "none there"), ("", "a folder")])
def test_a_parameters_file_that_is_none_is_told(tmp_path, name, found):
    with pytest.raises(ParameterError, match=f"expected a parameters file, got {found}; name ano"):
        parameters_of_file(tmp_path / name)


# ---------------------------------------------------------------- publisher and listener


PROFILES = st.builds(
    QoSProfile,
    depth=st.just(1),
    reliability=st.sampled_from([ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT]),
    durability=st.sampled_from([DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE]),
    liveliness=st.sampled_from([LivelinessPolicy.AUTOMATIC, LivelinessPolicy.MANUAL_BY_TOPIC]),
    deadline=st.sampled_from([0, 100 * MS, 200 * MS]).map(lambda ns: Duration(nanoseconds=ns)),
    liveliness_lease_duration=st.sampled_from([0, 100 * MS, 200 * MS]).map(
        lambda ns: Duration(nanoseconds=ns)
    ),
)


@given(PROFILES, PROFILES)
def test_what_is_unmet_is_what_the_middleware_does_not_connect(offered, requested):
    compatible, why = qos_check_compatible(offered, requested)
    assert bool(unmet(offered, requested)) == (compatible == QoSCompatibility.ERROR), why


@given(PROFILES, PROFILES)
def test_asking_for_what_is_offered_mends_all_that_is_unmet(offered, requested):
    for policy in unmet(offered, requested):
        setattr(requested, policy, getattr(offered, policy))
    assert not unmet(offered, requested)


# ---------------------------------------------------------------- in effect


def reliability(infos) -> ReliabilityPolicy:
    """Of the policy node, where the graph knows one of its topics."""
    (found,) = [info for info in infos if info.node_name == "policy"]
    return found.qos_profile.reliability


def test_overrides_are_in_effect_on_their_topic_alone_in_every_active_period(
    start_policy, robot, monitor
):
    overrides = {
        f"{CAMERA}.depth": 3,
        f"{CAMERA}.reliability": "reliable",
        f"{POSE}.reliability": "best_effort",
    }
    node = start_policy(**STAND_IN, **overrides).node
    hears = robot.node.get_subscriptions_info_by_topic
    says = robot.node.get_publishers_info_by_topic
    for _ in range(2):
        assert monitor.wait_for(lambda: active(monitor), TIMEOUT_S)
        depths = {s.topic_name: s.qos_profile.depth for s in node.subscriptions}
        assert depths["/camera/image_raw"] == 3 and depths["/joint_states"] == 50
        assert reliability(hears("/camera/image_raw")) == ReliabilityPolicy.RELIABLE
        assert reliability(hears("/joint_states")) == ReliabilityPolicy.BEST_EFFORT
        assert reliability(says("/policy/target_pose")) == ReliabilityPolicy.BEST_EFFORT
        assert reliability(says("/policy/gripper")) == ReliabilityPolicy.RELIABLE
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            done = getattr(node, f"trigger_{transition}")()
            assert done == TransitionCallbackReturn.SUCCESS, transition
        monitor.statuses.clear()


def test_an_emergency_stop_that_was_latched_before_the_node_began_is_heard_where_asked_for(
    start_policy, robot, monitor
):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.node.create_publisher(Bool, "estop", latched).publish(Bool(data=True))
    heard = "qos_overrides./estop.subscription.durability"
    start_policy(**STAND_IN, estop_topic="estop", **{heard: "transient_local"})
    hold = wait_for_hold(monitor, "emergency stop")
    assert hold.values["reason"] == "estop"


def test_an_override_of_a_topic_that_the_node_has_not_is_told(start_policy, capfd):
    wrong = f"{CAMERA}.depth".replace("image_raw", "imageraw")
    node = start_policy(**STAND_IN, **{wrong: 3}).node
    (line,) = untaken_overrides(node)
    assert line == f"{wrong}: no topic of the node takes it; {CAMERA}.depth?"
    assert f"ignored: {line}" in capfd.readouterr().err


# ---------------------------------------------------------------- events


def test_a_camera_that_misses_its_deadline_holds_the_arm_until_it_sends_again(
    start_policy, robot, monitor, offer, patient
):
    offer(deadline=Duration(nanoseconds=200 * MS))
    start_policy(**STAND_IN, binding=patient, **{f"{CAMERA}.deadline": 300 * MS})
    assert monitor.wait_for(lambda: active(monitor), TIMEOUT_S)
    picture, robot.picture = robot.picture, None
    hold = wait_for_hold(monitor, "no message within the deadline of 0.3 s", len(monitor.statuses))
    assert hold.values["reason"] == "stale_input"
    assert f"raise {CAMERA}.deadline" in hold.message
    since = monitor.statuses.index(hold)
    assert monitor.wait_for(lambda: len(monitor.statuses) > since + 4, TIMEOUT_S)
    assert not active(monitor, since)
    robot.picture = picture
    assert monitor.wait_for(lambda: active(monitor, since), TIMEOUT_S)


@pytest.mark.parametrize("leaves", [False, True], ids=["silent", "gone"])
def test_a_camera_that_is_not_alive_any_more_holds_the_arm(
    start_policy, robot, monitor, offer, patient, leaves
):
    offer(
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(nanoseconds=300 * MS),
    )
    lease = {f"{CAMERA}.liveliness_lease_duration": 400 * MS}
    start_policy(**STAND_IN, binding=patient, **lease)
    assert monitor.wait_for(lambda: active(monitor), TIMEOUT_S)
    picture, robot.picture = robot.picture, None
    if leaves:
        monitor.wait_for(lambda: False, 0.1)  # the last picture is out
        robot.node.destroy_publisher(robot.images)
    hold = wait_for_hold(monitor, "no publisher has been alive for 0.4 s", len(monitor.statuses))
    assert hold.values["reason"] == "stale_input"
    since = monitor.statuses.index(hold)
    assert monitor.wait_for(lambda: len(monitor.statuses) > since + 4, TIMEOUT_S)
    assert not active(monitor, since)
    if not leaves:
        robot.picture = picture
        assert monitor.wait_for(lambda: active(monitor, since), TIMEOUT_S)


def test_nothing_is_asked_of_the_middleware_by_default(
    start_policy, robot, monitor, offer, patient
):
    offer(deadline=Duration(nanoseconds=200 * MS))
    start_policy(**{**STAND_IN, "decision_timeout": 60.0}, binding=patient)
    assert monitor.wait_for(lambda: active(monitor), TIMEOUT_S)
    robot.picture = None
    since = len(monitor.statuses)
    assert monitor.wait_for(lambda: len(monitor.statuses) > since + 5, TIMEOUT_S)
    assert all(status.active for status in monitor.statuses[since:])


@pytest.mark.parametrize(
    ("policy", "value", "asked"),
    [
        ("reliability", "reliable", "reliability reliable"),
        ("deadline", 300 * MS, "deadline 300000000 ns"),
        ("liveliness_lease_duration", 300 * MS, "liveliness_lease_duration 300000000 ns"),
        ("liveliness", "manual_by_topic", "liveliness manual_by_topic"),
    ],
)
def test_a_publisher_that_cannot_be_heard_is_told_with_what_it_does_not_offer(
    start_policy, robot, monitor, offer, capfd, policy, value, asked
):
    picture, robot.picture = robot.picture, None
    offer(reliability=ReliabilityPolicy.BEST_EFFORT)
    robot.picture = picture
    arrays = []
    monitor.node.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 10)
    start_policy(**STAND_IN, **{f"{CAMERA}.{policy}": value})
    hold = wait_for_hold(monitor, f"does not offer {asked}")
    assert hold.values["reason"] == "waiting_for_input" and "'image'" in hold.message
    assert "ros2 topic info -v /camera/image_raw" in hold.message

    def told() -> bool:
        inputs = [s for a in arrays for s in a.status if s.name == "policy: input image"]
        return any(asked in status.message for status in inputs)

    assert monitor.wait_for(told, TIMEOUT_S)
    assert "input not heard: /camera/image_raw" in capfd.readouterr().err


def test_who_asks_for_it_hears_that_the_node_has_stopped_and_of_no_pause_before(
    start_policy, robot, monitor
):
    alive: list[int] = []
    monitor.node.create_subscription(
        DiagnosticStatus,
        "policy/status",
        lambda msg: None,
        QoSProfile(
            depth=10,
            liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
            liveliness_lease_duration=Duration(seconds=1),
        ),
        event_callbacks=SubscriptionEventCallbacks(
            liveliness=lambda event: alive.append(event.alive_count)
        ),
    )
    slow = {**STAND_IN, "instruction": "", "control_rate": 0.6}  # it holds, and tells so in 1.7 s
    node = start_policy(**slow).node
    assert monitor.wait_for(lambda: 1 in alive and len(monitor.statuses) >= 3, TIMEOUT_S)
    assert 0 not in alive[alive.index(1) :]
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert monitor.wait_for(lambda: alive[-1] == 0, TIMEOUT_S)
