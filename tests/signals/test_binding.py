"""Laws of the binding: the shipped ones fit, YAML round trips, mistakes are refused by field."""

import re
import subprocess
import sys

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasLayout, CanvasSchema, RegionSpec
from canvas_robot.signals import (
    BindingError,
    ImageSignal,
    TextSignal,
    VectorSignal,
    binding_from_yaml,
    load_binding,
)
from canvas_robot.signals.codecs import (
    CODEC_DECLARATIONS,
    DiffusionActionBinding,
    region_binding,
)

WIDOWX = config_path("bindings", "widowx.yaml")
SHIPPED = sorted(WIDOWX.parent.glob("*.yaml"))
SCHEMAS = {
    "widowx_two_cameras": "widowx_two_cameras_tiny",  # of those that do not fit widowx_tiny
    "widowx_video": "widowx_tiny_video",
    "fetch_reach": "position_arm_tiny",
    "fetch_pick_and_place": "position_arm_tiny",
    "metaworld_reach": "position_arm_tiny",
    "aloha_transfer_cube": "bimanual_tiny",
}
TINY = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))

shipped = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
of_a_robot = pytest.mark.parametrize(
    "path", [path for path in SHIPPED if load_binding(path).robot], ids=lambda path: path.stem
)


FIELDS = {"type": "fields", "topic": "x", "message": "std_msgs/msg/Float64", "fields": ["data"]}


def edited(*path, **changes) -> str:
    """The shipped binding's YAML, fields of the object at `path` replaced; None removes one."""
    data = yaml.safe_load(WIDOWX.read_text())
    target = data
    for key in path:
        target = target[key]
    for key, value in changes.items():
        if value is None:
            del target[key]
        else:
            target[key] = value
    return yaml.safe_dump(data)


def test_what_counts_as_received_has_no_skew_to_look_at():
    received = edited("sources", "ros", "image", stamp="received")
    assert binding_from_yaml(received).sources.ros["image"].stamp == "received"
    data = yaml.safe_load(received)
    data["signals"]["image"]["max_skew_s"] = 0.05
    with pytest.raises(BindingError, match=r"sources\.ros\.image: expected stamp: header where"):
        binding_from_yaml(yaml.safe_dump(data))


@shipped
def test_every_shipped_binding_fits_a_shipped_schema(path):
    name = SCHEMAS.get(path.stem, "widowx_tiny")
    schema = CanvasSchema.from_json(config_path("schemas", f"{name}.json"))
    load_binding(path).check_schema(schema)


@shipped
def test_every_shipped_binding_round_trips_through_yaml(path):
    binding = load_binding(path)
    assert binding_from_yaml(binding.to_yaml()) == binding


@shipped
def test_every_shipped_binding_says_where_an_environment_shows_each_sampled_signal(path):
    binding = load_binding(path)
    sampled = {binding.regions[region].signal for region in binding.observed_regions()}
    goal = binding.regions[binding.goal_region()].signal
    assert set(binding.sources.env) - {goal} == sampled <= set(binding.signals)


@of_a_robot
def test_every_shipped_binding_of_a_robot_samples_only_declared_signals(path):
    binding = load_binding(path)
    sampled = {binding.regions[region].signal for region in binding.observed_regions()}
    for source in (binding.sources.ros, binding.sources.dataset):
        assert set(source) == sampled


@of_a_robot
def test_every_shipped_binding_of_a_robot_limits_steps_to_what_its_action_may_say(path):
    binding = load_binding(path)
    assert binding.action_signal().high[:6] == binding.robot.step_limits
    assert binding.action_signal().representation == "delta"


@pytest.mark.parametrize("name", ["simpler_widowx", "maniskill_bridge"])
def test_a_checkpoint_of_the_robot_runs_in_its_simulators(widowx, name):
    """They differ in what an environment shows and takes, and in nothing else."""
    binding = load_binding(config_path("bindings", f"{name}.yaml"))
    sources = msgspec.structs.replace(binding.sources, env=widowx.sources.env)
    assert msgspec.structs.replace(binding, sources=sources, environment=None) == widowx
    assert binding.environment is not None


def test_the_shipped_binding_says_which_region_is_which(widowx):
    assert widowx.observed_regions() == ("visual", "proprio")
    assert (widowx.action_region(), widowx.goal_region()) == ("action", "goal")
    kinds = {name: type(signal) for name, signal in widowx.signals.items()}
    assert kinds == {
        "image": ImageSignal,
        "state": VectorSignal,
        "instruction": TextSignal,
        "action": VectorSignal,
    }


@given(st.floats(0.1, 1000.0))
def test_the_length_of_a_tick_is_that_of_the_control_rate(widowx, rate):
    binding = widowx.with_control_rate(rate)
    assert abs(binding.tick_ns - 1e9 / rate) <= 0.5
    assert msgspec.structs.replace(binding, control_rate_hz=5.0) == widowx
    assert widowx.control_rate_hz == 5.0


@pytest.mark.parametrize("rate", [0.0, -5.0, 1001.0, float("nan"), float("inf")])
def test_a_control_rate_that_no_robot_has_is_refused(widowx, rate):
    with pytest.raises(BindingError) as error:
        widowx.with_control_rate(rate)
    assert str(error.value) == f"control_rate_hz: expected 0.1 to 1000, got {rate}"


@pytest.mark.parametrize(
    "text, message",
    [
        (edited(colour="red"), "Object contains unknown field `colour`"),
        (edited("robot", colour="red"), "Object contains unknown field `colour` - at `$.robot`"),
        (edited("robot", reactions={"stopped": "jump"}), "Invalid enum value 'jump'"),
        (
            edited("regions", "visual", size=3),
            "codec 'visual': Object contains unknown field `size` - at `$.regions[...]`",
        ),
        (edited("signals", "image", fps=30), "Object contains unknown field `fps`"),
        (edited("sources", "ros", "image", qos="best"), "Object contains unknown field `qos`"),
        (edited("robot", arm=None), "Object missing required field `arm` - at `$.robot`"),
        (edited(sources=None), "Object missing required field `sources`"),
        (
            edited(control_rate_hz="fast"),
            "Expected `float`, got `str` - at `$.control_rate_hz`",
        ),
        (
            edited("robot", box_low=[0.0, 0.0]),
            "Expected `array` of length 3, got 2 - at `$.robot.box_low`",
        ),
        (edited("robot", anchor="base"), "Invalid enum value 'base' - at `$.robot.anchor`"),
        (edited("signals", "image", kind="sound"), "Invalid value 'sound'"),
        (edited("sources", "ros", "image", type="file"), "Invalid value 'file'"),
        (
            edited("regions", "visual", codec="video"),
            "codec: expected one of visual, text, vector, action, action_diffusion, reward, "
            "thought; got 'video' - at `$.regions[...]`",
        ),
        (
            edited("regions", "visual", codec=["visual"]),
            "got ['visual'] - at `$.regions[...]`",
        ),
        (
            edited("regions", visual="image"),
            "expected signal and codec, got str - at `$.regions[...]`",
        ),
        (
            edited("regions", "goal", normalise="quantile"),
            "codec 'text': Object contains unknown field `normalise`",
        ),
        (
            edited("regions", "proprio", normalise="none"),
            "codec 'vector': Invalid enum value 'none' - at `$.normalise`",
        ),
        (
            edited("regions", "action", steps=4),
            "codec 'action': Object contains unknown field `steps`",
        ),
        (
            edited("regions", "action", codec="action_diffusion", steps=0),
            "codec 'action_diffusion': Expected `int` >= 1 - at `$.steps`",
        ),
        (
            edited("regions", "action", hidden=0),
            "codec 'action': Expected `int` >= 1 - at `$.hidden`",
        ),
        (
            edited("regions", "goal", codec="thought"),
            "codec 'thought': Object contains unknown field `signal`",
        ),
        (
            edited("regions", "visual", signal=None),
            "codec 'visual': Object missing required field `signal`",
        ),
        (
            edited("regions", "proprio", codec="reward", normalise="none"),
            "region 'proprio': codec 'reward' needs a signal of 1 component, signal 'state' has 7",
        ),
        (
            edited("regions", "visual", signal="camera"),
            "region 'visual': names signal 'camera'; "
            "declared signals: ['action', 'image', 'instruction', 'state']",
        ),
        (
            edited("regions", "visual", signal="state"),
            "region 'visual': codec 'visual' needs a ImageSignal, signal 'state' is a VectorSignal",
        ),
        (
            edited("regions", "goal", signal="image"),
            "region 'goal': codec 'text' needs a TextSignal, signal 'image' is a ImageSignal",
        ),
        (
            edited("signals", "state", units=["m"]),
            "units: expected 7 entries, one per name "
            "['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper'], got 1",
        ),
        (
            edited("robot", part_m=0.0),
            "robot: expected step_limits, speed_limits, acceleration_limits, joint_speed_limit,",
        ),
        (
            edited("robot", speed_limits=[0.3, 0.3, 0.0, 1.0, 1.0, 1.0]),
            "robot: expected step_limits, speed_limits, acceleration_limits, joint_speed_limit,",
        ),
        (
            edited("robot", acceleration_limits=[3.0] * 5 + [float("nan")]),
            "robot: expected finite limits, got",
        ),
        (
            edited("robot", tilt_limit=1.6),
            "robot: expected tilt_limit between 0 and pi/2, got 1.6",
        ),
        (
            edited("sources", "ros", "image", depth={"near": 1.0, "far": 0.5}),
            "depth: expected 0 <= near < far, got 1.0 and 0.5",
        ),
        (
            edited(
                *("sources", "ros", "image"),
                **{"transport": "compressed", "depth": {"near": 0.5, "far": 1.0}},
            ),
            "expected transport: raw with depth, for depth images are not read compressed",
        ),
        (
            edited("sources", "ros", "image", transport="theora"),
            "Invalid enum value 'theora'",
        ),
        (
            edited("sources", "ros", state=FIELDS),
            "sources.ros.state: expected a vector signal and one field for each of its components, "
            "got a VectorSignal and 1 fields",
        ),
        (
            edited("sources", "ros", image=FIELDS),
            "sources.ros.image: expected a vector signal and one field for each of its components, "
            "got a ImageSignal and 1 fields",
        ),
        (
            edited("sources", "ros", state={"type": "joined", "parts": [FIELDS, FIELDS]}),
            "sources.ros.state: expected a vector signal and one field for each of its components, "
            "got a VectorSignal and 2 fields",
        ),
        (
            edited("sources", "ros", state={"type": "joined", "parts": [FIELDS]}),
            "parts: expected two sources of type fields at least, got 1",
        ),
        (
            edited("sources", "ros", state={**FIELDS, "message": "os"}),
            "message: expected a type such as geometry_msgs/msg/WrenchStamped, got 'os'",
        ),
        (
            edited("robot", box_low=[0.5, -0.2, 0.0]),
            "robot: expected box_low < box_high and rpy_low < rpy_high, got "
            "(0.5, -0.2, 0.0, -0.8, -0.8, -1.57) and (0.45, 0.25, 0.3, 0.8, 0.8, 1.57)",
        ),
        (
            edited("robot", rpy_high=[0.8, 1.6, 1.57]),
            "robot: expected pitch bounds within +-pi/2, got -0.8, 1.6",
        ),
        (
            edited("robot", rpy_low=[-0.8, -0.8, 2.0], rpy_high=[0.8, 0.8, 4.0]),
            "robot: expected bounds of roll and yaw within +-pi, or +-3.15 for all the way round, "
            "got 2.0, 4.0",
        ),
        (edited("robot", part_rad=float("inf")), "robot: expected finite limits, got"),
        (edited(control_rate_hz=0.0), "control_rate_hz: expected 0.1 to 1000, got 0.0"),
        ("", "Expected `object`, got `null`"),
        ("- image", "Expected `object`, got `array`"),
        ("a: [", "while parsing a flow node"),
        ("a: \x07", "special characters are not allowed"),
    ],
)
def test_what_is_not_a_binding_is_refused_by_file_and_field(tmp_path, text, message):
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(BindingError) as error:
        load_binding(path)
    assert str(error.value).startswith(f"{path}: binding: ") and message in str(error.value)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BindingError, match=re.escape(f"{path}: 'utf-8' codec can't decode")):
        load_binding(path)


@pytest.mark.parametrize("source", ["ros", "env", "dataset"])
def test_a_source_of_an_undeclared_signal_is_refused(source):
    data = yaml.safe_load(WIDOWX.read_text())
    data["sources"][source]["stat"] = data["sources"][source].pop("state")
    with pytest.raises(BindingError, match="stat"):
        binding_from_yaml(yaml.safe_dump(data))


@pytest.mark.parametrize("scalar", ["2024-13-45", "!!int x"])
def test_a_scalar_that_yaml_cannot_read_is_refused(scalar):
    with pytest.raises(BindingError):
        binding_from_yaml(f"control_rate_hz: {scalar}")


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text("ab.", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=7) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3)
    ),
    max_leaves=7,
)


def places(value, *path):
    """Paths to every value inside a YAML value."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] + [place for key, inner in inside for place in places(inner, *path, key)]


@given(st.data())
def test_whatever_stands_in_place_of_a_value_it_is_a_binding_or_refused(data):
    changed = yaml.safe_load(WIDOWX.read_text())
    *path, last = data.draw(st.sampled_from(places(changed)[1:]))
    holder = changed
    for key in path:
        holder = holder[key]
    holder[last] = data.draw(yaml_values)
    try:
        binding = binding_from_yaml(yaml.safe_dump(changed))
    except BindingError as error:
        assert str(error).startswith("binding: ")
        return
    assert binding_from_yaml(binding.to_yaml()) == binding


def with_region(name: str, region: RegionSpec | None, t_current: int = 1) -> CanvasSchema:
    """The shipped schema, one region replaced; None removes it."""
    layout = TINY.layout
    regions = {key: value for key, value in layout.regions.items() if key != name}
    if region is not None:
        regions[name] = region
    return CanvasSchema(
        CanvasLayout(layout.T, layout.H, layout.W, layout.d_model, regions, t_current)
    )


@pytest.mark.parametrize(
    "schema, message",
    [
        (
            with_region("proprio", None),
            "binding and schema name different regions: only in the binding ['proprio'], "
            "only in the schema []",
        ),
        (
            with_region("wrist", RegionSpec((0, 1, 0, 1, 0, 1))),
            "binding and schema name different regions: only in the binding [], "
            "only in the schema ['wrist']",
        ),
        (
            with_region("proprio", RegionSpec((0, 1, 16, 17, 0, 1))),
            "region 'proprio': an observed region ends at the current tick, "
            "t1 = t_current + 1 = 2; got t1 = 1",
        ),
        (
            with_region("action", RegionSpec((2, 5, 16, 17, 1, 3))),
            "region 'action': a region that decodes to action starts at the current tick, "
            "t0 = t_current = 1; got t0 = 2",
        ),
        (
            with_region("goal", RegionSpec((0, 4, 17, 19, 0, 16))),
            "region 'goal': codec 'text' fills the text stream, the schema declares 'video'",
        ),
        (
            with_region("proprio", RegionSpec((0, 2, 16, 17, 0, 1), stream="text")),
            "region 'proprio': codec 'vector' fills the video stream, the schema declares 'text'",
        ),
    ],
)
def test_a_schema_that_the_binding_does_not_fit_is_refused(widowx, schema, message):
    with pytest.raises(BindingError) as error:
        widowx.check_schema(schema)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "codecs, region", [("action or action_diffusion", "action"), ("text", "goal")]
)
def test_a_binding_needs_one_action_and_one_goal(widowx, codecs, region):
    regions = {**widowx.regions, "second": widowx.regions[region]}
    two = msgspec.structs.replace(widowx, regions=regions)
    schema = with_region("second", TINY.layout.regions[region])
    with pytest.raises(BindingError) as error:
        two.check_schema(schema)
    assert str(error.value) == f"expected one region with codec {codecs}, got {[region, 'second']}"


def test_an_action_may_be_drawn_by_diffusion_and_is_still_the_one_action(widowx):
    binding = binding_from_yaml(edited("regions", "action", codec="action_diffusion", steps=4))
    binding.check_schema(TINY)
    assert binding.action_region() == "action"
    assert binding.regions["action"] == DiffusionActionBinding(
        signal="action", normalise="mean_std", steps=4
    )


def with_more(**regions) -> str:
    """The shipped binding's YAML with a reward signal and more regions."""
    data = yaml.safe_load(WIDOWX.read_text())
    numbers = {"names": ["reward"], "units": ["1"], "low": [0.0], "high": [1.0]}
    data["signals"]["reward"] = {"kind": "vector", "frame": "none", **numbers}
    data["regions"] |= regions
    return yaml.safe_dump(data)


def test_reward_and_thought_regions_are_not_sampled(widowx):
    text = with_more(reward={"signal": "reward", "codec": "reward"}, thought={"codec": "thought"})
    binding = binding_from_yaml(text)
    assert binding_from_yaml(binding.to_yaml()) == binding
    assert set(binding.observed_regions()) == set(widowx.observed_regions())
    assert binding.regions["thought"].signal is None


@pytest.mark.parametrize(
    "region, future",
    [
        (RegionSpec((2, 4, 0, 8, 0, 8)), True),
        (RegionSpec((1, 2, 17, 18, 0, 8)), False),  # observed, though an output
    ],
)
def test_video_that_begins_after_the_current_tick_is_predicted(region, future):
    binding = binding_from_yaml(with_more(more={"signal": "image", "codec": "visual"}))
    schema = with_region("more", region)
    binding.check_schema(schema)
    assert binding.future_regions(schema) == ({"more"} if future else set())


@pytest.mark.parametrize(
    "codec, region, message",
    [
        (
            {"signal": "image", "codec": "visual"},
            RegionSpec((2, 4, 0, 8, 0, 8), is_output=False),
            "region 'more': an observed region ends at the current tick, "
            "t1 = t_current + 1 = 2; got t1 = 4",
        ),
        (
            {"signal": "reward", "codec": "reward"},
            RegionSpec((0, 2, 16, 17, 4, 5)),
            "region 'more': a region that decodes to reward starts at the current tick, "
            "t0 = t_current = 1; got t0 = 0",
        ),
        (
            {"codec": "thought"},
            RegionSpec((0, 2, 16, 17, 4, 5), stream="text"),
            "region 'more': codec 'thought' fills the video stream, the schema declares 'text'",
        ),
        (
            {"signal": "reward", "codec": "vector"},
            RegionSpec((1, 3, 16, 17, 4, 5)),
            "region 'more': an observed region ends at the current tick, "
            "t1 = t_current + 1 = 2; got t1 = 3",
        ),
    ],
)
def test_a_codecs_role_says_where_its_region_may_lie(codec, region, message):
    with pytest.raises(BindingError) as error:
        binding_from_yaml(with_more(more=codec)).check_schema(with_region("more", region))
    assert str(error.value) == message


@pytest.mark.parametrize("name", CODEC_DECLARATIONS)
def test_every_codec_is_declared_under_its_own_name(name):
    declared = CODEC_DECLARATIONS[name]
    bound = declared() if declared.signal is None else declared(signal="any")
    assert bound.codec == name
    assert region_binding(msgspec.to_builtins(bound)) == bound


def test_bindings_are_read_without_torch():
    code = (
        "import sys; from canvas_robot.signals import load_binding; "
        f"load_binding({str(WIDOWX)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
