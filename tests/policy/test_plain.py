"""Laws of the plain policy: it sees what the action reads, and is called as a canvas policy is."""

import json

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.policy.codecs.codec import ModelError
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.policy.plain import PlainPolicy
from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.policy.plain_network import Eye, PlainShape
from canvas_robot.policy.plain_words import CODE_SIZE, instruction_code
from canvas_robot.policy.policy import NoInstructionError
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import History, NotReadyError, SignalError, StatisticsError

SHAPE = PlainShape(width=8, image_size=(32, 32), binary=("gripper",))
TEXTS = (
    "touch the red cube",
    "touch the blue cube",
    "put the spoon on the towel",
    "put carrot on plate",
    "stack the green block on the yellow block",
    "stack the yellow block on the green block",
    "put eggplant into yellow basket",
)


@pytest.fixture(scope="module")
def make_plain(small_schema, widowx, bridge):
    """A function that makes a policy whose instruction matters; fields of topology on top."""

    def make(topology=None, shape=SHAPE, seed=0) -> PlainPolicy:
        schema = small_schema()
        if topology is not None:
            data = json.loads(json.dumps(schema.to_dict()))
            data["topology"] = [{"src": src, "dst": dst} for src, dst in topology]
            schema = CanvasSchema.from_dict(data)
        torch.manual_seed(seed)
        model = PlainModel(schema, widowx, bridge, shape)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        return PlainPolicy(model, schema, widowx, bridge, trained=False)

    return make


def decide(policy, sample, instruction="touch the red cube") -> np.ndarray:
    policy.reset(instruction)
    return policy.act(sample).values


# ---------------------------------------------------------------- the instruction


def test_instructions_that_differ_have_codes_that_differ():
    codes = np.stack([instruction_code(text) for text in TEXTS])
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=2)
    assert (distances[~np.eye(len(TEXTS), dtype=bool)] > 0.5 * CODE_SIZE**0.5).all()


def test_case_and_punctuation_do_not_count():
    assert np.array_equal(instruction_code("Touch  the red cube."), instruction_code(TEXTS[0]))


@given(st.text(max_size=200))
def test_any_text_has_a_code_of_numbers_about_one(text):
    code = instruction_code(text)
    assert code.shape == (CODE_SIZE,) and code.dtype == np.float32
    assert np.abs(code).max() <= max(1.0, (3 * len(text)) ** 0.5)


def test_codes_are_those_of_every_process_and_release():
    """As BLAKE2b (RFC 7693) of 8 bytes says: what a checkpoint was trained with."""
    signs = instruction_code("cube")
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert np.packbits(signs > 0).tobytes().hex() == "1e4657618fd2a0bd"


# ---------------------------------------------------------------- the network


def test_a_feature_that_moves_in_the_picture_moves_its_place():
    torch.manual_seed(0)
    eye = Eye(1, 8, 4)
    with torch.no_grad():
        eye.sharpness.fill_(6.0)
    pictures = torch.full((2, 1, 64, 64, 3), 60, dtype=torch.uint8)
    pictures[0, 0, 16:24, 16:24] = 255
    pictures[1, 0, 32:40, 24:32] = 255
    with torch.no_grad():
        first, second = eye(pictures, torch.zeros(2, 4))
    down, across = (second - first).chunk(2)
    follows = (down - 0.5).abs().lt(0.1) & (across - 0.25).abs().lt(0.1)  # 16 and 8 of 64 pixels
    assert follows.sum() >= 3


@pytest.mark.parametrize("width, expected", [(32, 135_000), (64, 520_000)])
def test_the_width_says_how_large_it_is(widowx, bridge, width, expected):
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    model = PlainModel(schema, widowx, bridge, PlainShape(width=width))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(expected, rel=0.05)


# ---------------------------------------------------------------- what is seen


def test_each_signal_that_the_action_reads_changes_the_decision(make_plain, samples):
    policy, one, other = make_plain(), samples(0), samples(1)
    decision = decide(policy, one)
    assert not np.array_equal(decision, decide(policy, {**one, "image": other["image"]}))
    assert not np.array_equal(decision, decide(policy, {**one, "state": other["state"]}))
    assert not np.array_equal(decision, decide(policy, one, "touch the blue cube"))


@pytest.mark.parametrize(
    "reads, changing",
    [
        (("visual",), ["image"]),
        (("proprio",), ["state"]),
        (("visual", "goal"), ["image", "instruction"]),
    ],
)
def test_what_the_action_does_not_read_changes_nothing(make_plain, samples, reads, changing):
    policy, one, other = make_plain([("action", r) for r in reads]), samples(0), samples(1)
    decision = decide(policy, one)
    told = {
        "image": decide(policy, {**one, "image": other["image"]}),
        "state": decide(policy, {**one, "state": other["state"]}),
        "instruction": decide(policy, one, "touch the blue cube"),
    }
    assert [name for name, got in told.items() if not np.array_equal(got, decision)] == changing


def test_what_is_read_through_others_is_seen(make_plain, samples):
    policy, one = make_plain([("action", "proprio"), ("proprio", "visual")]), samples(0)
    changed = decide(policy, {**one, "image": samples(1)["image"]})
    assert not np.array_equal(decide(policy, one), changed)


def test_an_action_that_reads_nothing_observed_is_refused(make_plain):
    with pytest.raises(ModelError, match="reads no observed region"):
        make_plain([("action", "goal")])


def test_a_picture_is_squashed_as_everywhere(make_plain, samples):
    policy, sample = make_plain(), samples(0, 256)
    small = {**sample, "image": squash(sample["image"], (64, 64))}
    smaller = squash(sample["image"], SHAPE.image_size)
    frames = {"visual": smaller, "proprio": sample["state"]}
    as_given = policy.model.encode(
        {
            "visual": (torch.from_numpy(frames["visual"])[None, None], torch.zeros(1, 1) > 0),
            "proprio": (torch.from_numpy(sample["state"]).expand(1, 2, 7), torch.zeros(1, 2) > 0),
        },
        ["a"],
    )
    assert torch.equal(as_given.pictures[0][0, 0], torch.from_numpy(smaller))
    assert not np.array_equal(decide(policy, sample), decide(policy, small)), "squashed once only"


# ---------------------------------------------------------------- what comes out


def test_units_and_back(make_plain):
    model = make_plain().model
    values = np.random.default_rng(0).normal(size=(3, 4, 7)).astype(np.float32) * 0.02
    values[..., 6] = [0, 1, 1, 0]
    targets = model.from_units(values)
    assert torch.equal(targets[..., 6], torch.from_numpy(values[..., 6]))
    targets[..., 6] = targets[..., 6] * 8 - 4  # logits
    assert np.allclose(model.to_units(targets), values, atol=1e-6)


def test_a_binary_component_is_never_in_between(make_plain, samples):
    chunk = np.stack([decide(make_plain(seed=seed), samples(seed)) for seed in range(6)])
    assert set(np.unique(chunk[..., 6])) == {0.0, 1.0}


def test_without_statistics_of_a_binary_component_it_is_decided_all_the_same(
    small_schema, widowx, bridge
):
    """As in data where the gripper never moved."""
    still = msgspec.structs.replace(bridge["action"], std=(*bridge["action"].std[:6], 0.0))
    PlainModel(small_schema(), widowx, {**bridge, "action": still}, SHAPE)
    with pytest.raises(StatisticsError, match="name other statistics"):
        PlainModel(small_schema(), widowx, {**bridge, "action": still}, PlainShape(width=8))


def test_unknown_binary_components_are_refused_with_those_that_there_are(
    small_schema, widowx, bridge
):
    with pytest.raises(ModelError, match=r"some of \['dx', .*'gripper'\], got \['grip'\]"):
        PlainModel(small_schema(), widowx, bridge, PlainShape(width=8, binary=("grip",)))


def test_missing_statistics_are_named(small_schema, widowx, bridge):
    with pytest.raises(StatisticsError, match=r"region 'proprio' needs those of signal 'state'"):
        PlainModel(small_schema(), widowx, {"action": bridge["action"]}, SHAPE)


def test_a_chunk_is_as_long_as_the_schema_says(make_plain, samples):
    policy = make_plain()
    policy.reset("lift")
    chunk = policy.act(samples(0))
    assert chunk.values.shape == (policy.horizon, 7) == (4, 7)
    assert chunk.values.dtype == np.float32 and chunk.name == "action" and chunk.tick == 0
    assert set(chunk.timings_ms) == {"codec", "forward"}
    assert set(chunk.stamps_ns) == set(chunk.ages) == {"visual", "proprio"}


# ---------------------------------------------------------------- an episode


def test_samples_by_name_and_a_history_decide_alike(make_plain, samples, widowx):
    by_name, by_history = make_plain(), make_plain()
    history = History(by_history.schema, widowx)
    by_name.reset("lift")
    by_history.reset("lift")
    for tick in range(4):
        stamp = (tick + 1) * widowx.tick_ns
        for signal, value in samples(tick).items():
            history.push(signal, stamp, value)
        one = by_name.act(samples(tick))
        other = by_history.act(history.observe(tick, stamp))
        assert np.array_equal(one.values, other.values)
        assert (one.tick, one.stamps_ns, one.ages) == (other.tick, other.stamps_ns, other.ages)


def test_ages_are_the_ticks_since_a_region_was_refreshed(small_schema, widowx, bridge, samples):
    schema = small_schema(visual={"period": 3})
    policy = PlainPolicy(
        PlainModel(schema, widowx, bridge, SHAPE), schema, widowx, bridge, trained=False
    )
    policy.reset("lift")
    assert [policy.act(samples(t)).ages["visual"] for t in range(5)] == [0, 1, 2, 0, 1]


def test_a_reset_forgets_what_was_seen(make_plain, samples):
    policy = make_plain()
    fresh = decide(policy, samples(0))
    policy.act(samples(1))
    assert np.array_equal(decide(policy, samples(0)), fresh)


def test_before_a_reset_and_after_forgetting_there_is_nothing_to_do(make_plain, samples):
    policy = make_plain()
    with pytest.raises(NoInstructionError):
        policy.act(samples(0))
    policy.reset("lift")
    policy.forget()
    with pytest.raises(NoInstructionError):
        policy.act(samples(0))


def test_wrong_and_missing_samples_are_refused_and_change_nothing(make_plain, samples):
    policy = make_plain()
    expected = decide(policy, samples(0))
    policy.reset("touch the red cube")
    with pytest.raises(NotReadyError, match=r"expected signals \['image'\] too"):
        policy.act({"state": samples(0)["state"]})
    with pytest.raises(SignalError):
        policy.act({**samples(0), "state": np.full(7, np.nan, np.float32)})
    with pytest.raises(SignalError):
        policy.reset("a\nb")
    assert np.array_equal(policy.act(samples(0)).values, expected)


def test_observations_are_not_written_into(make_plain, samples, widowx):
    policy = make_plain()
    history = History(policy.schema, widowx)
    for signal, value in samples(0).items():
        history.push(signal, widowx.tick_ns, value)
    observation = history.observe(0, widowx.tick_ns)
    before = {region: frames.values.copy() for region, frames in observation.frames.items()}
    policy.reset("lift")
    policy.act(observation)
    for region, frames in observation.frames.items():
        assert np.array_equal(frames.values, before[region])
