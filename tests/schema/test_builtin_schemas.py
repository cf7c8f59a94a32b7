"""Laws of config/schemas: each compiles, says what it means, and no period is wasted."""

import pytest

from canvas_robot.resources import config_path, config_root
from canvas_robot.schema import ATTENTION_TYPES, CanvasSchema, compile_plan
from canvas_robot.schema.advice import advise
from canvas_robot.schema.description import control_rate_hz, describe
from canvas_robot.signals import load_binding

NAMES = sorted(path.stem for path in (config_root() / "schemas").glob("*.json"))
PROMPT_TOKENS = 226  # CogVideoX's text stream
SHORTER_PROMPTS = {  # of the small backbones
    "widowx_tiny": 128,
    "widowx_two_cameras_tiny": 128,
    "widowx_small": 16,
}
PIXELS = {
    "widowx_small": 12
}  # along the side of a token; CogVideoX's are 16: a VAE of 8, patches of 2


def load(name):
    return CanvasSchema.from_json(config_path("schemas", f"{name}.json"))


def test_the_shipped_schemas_are_these():
    assert NAMES == [
        "bimanual",
        "bimanual_tiny",
        "computer_use",
        "mobile_manipulator",
        "multi_robot",
        "position_arm_tiny",
        "widowx_bridge_2b",
        "widowx_bridge_5b",
        "widowx_small",
        "widowx_small_video",
        "widowx_tiny",
        "widowx_tiny_video",
        "widowx_two_cameras_tiny",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_schema_compiles_without_a_warning(name):
    schema = load(name)
    warnings = [a for a in advise(schema, compile_plan(schema)) if a.level == "warning"]
    assert warnings == []


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_schema_says_what_every_region_means(name):
    specs = [load(name).layout.region_spec(region) for region in load(name).layout.regions]
    assert all(spec.semantic_type and len(spec.semantic_type) > 10 for spec in specs)
    assert control_rate_hz(load(name)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_schema_has_one_goal_that_holds_the_prompt_and_outputs_from_now_on(name):
    schema = load(name)
    now = schema.layout.t_current
    rows = describe(schema).regions
    goals = [row for row in rows if row.stream == "text"]
    assert len(goals) == 1
    assert goals[0].tokens >= SHORTER_PROMPTS.get(name.removesuffix("_video"), PROMPT_TOKENS)
    for row in rows:
        t0, t1, *_ = row.bounds
        starts = now + 1 if row.name == "future" else now
        assert t0 == starts if row.is_output else t1 == now + 1 or row.stream == "text"
        assert row.timestep > 0 or not row.is_output


@pytest.mark.parametrize(
    "name", ["widowx_tiny", "widowx_small", "widowx_bridge_2b", "widowx_bridge_5b"]
)
def test_the_widowx_schemas_fit_the_shipped_bindings(name):
    for binding in ("widowx", "widowx_pose"):
        load_binding(config_path("bindings", f"{binding}.yaml")).check_schema(load(name))


@pytest.mark.parametrize("name", ["widowx_tiny_video", "widowx_small_video"])
def test_the_schema_with_video_to_come_fits_its_binding(name):
    binding, schema = load_binding(config_path("bindings", "widowx_video.yaml")), load(name)
    binding.check_schema(schema)
    assert binding.future_regions(schema) == {"future"}


def test_the_two_bridge_schemas_differ_in_width_only():
    small, large = load("widowx_bridge_2b"), load("widowx_bridge_5b")
    assert (small.layout.d_model, large.layout.d_model) == (1920, 3072)
    assert small.to_dict() | {"layout": None} == large.to_dict() | {"layout": None}


def test_camera_boxes_are_the_patch_grids_of_their_pictures():
    for name in NAMES:
        side = PIXELS.get(name.removesuffix("_video"), 16)
        for row in describe(load(name)).regions:
            size = next((w for w in row.semantic_type.split() if w.count("x") == 1), "")
            if row.semantic_type.startswith("RGB"):
                width, height = (int(extent) for extent in size.split("x"))
                assert row.size[1:] == (height // side, width // side)


def test_the_shipped_schemas_show_many_function_types():
    used = {s.fn for name in NAMES for row in describe(load(name)).regions for s in row.sources}
    assert used <= set(ATTENTION_TYPES) and len(used) >= 7


def test_the_schema_of_two_cameras_fits_the_binding_of_two():
    binding = load_binding(config_path("bindings", "widowx_two_cameras.yaml"))
    binding.check_schema(load("widowx_two_cameras_tiny"))
