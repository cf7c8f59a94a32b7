"""Laws of CanvasPolicy: one path from samples to a chunk; refusals change nothing."""

import numpy as np
import pytest
import torch

from canvas_robot.policy.codecs.text import PromptTooLongError
from canvas_robot.policy.policy import CanvasPolicy, NoInstructionError
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import History, NotReadyError, SignalError

TICK_NS = 200_000_000


def actions(policy, instruction, seeds, samples, before_each=lambda: None) -> list[np.ndarray]:
    """Chunks of an episode of samples, the policy keeping the history itself."""
    policy.reset(instruction)
    chunks = []
    for seed in seeds:
        before_each()
        chunks.append(policy.act(samples(seed)).values)
    return chunks


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def test_a_chunk_has_a_row_of_the_actions_components_for_each_tick_of_its_horizon(policy, samples):
    policy.reset("put the carrot on the plate")
    for tick in range(3):
        chunk = policy.act(samples(tick))
        assert (chunk.name, chunk.tick) == ("action", tick)
        assert chunk.values.shape == (policy.horizon, 7) == (4, 7)
        assert chunk.values.dtype == np.float32 and np.isfinite(chunk.values).all()
        assert set(chunk.timings_ms) == {"squash", "codec", "forward"}
        assert all(ms > 0 for ms in chunk.timings_ms.values())
        assert chunk.timings_ms["squash"] < chunk.timings_ms["codec"]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"visual_steps": 2},
        {"visual": {"period": 2}, "proprio": {"period": 3}},
    ],
    ids=["as shipped", "two pictures", "slow"],
)
def test_samples_by_name_and_an_observation_of_a_history_give_the_same_chunks(
    make_policy, samples, schema
):
    policy = make_policy(**schema)
    own = actions(policy, "lift", range(5), samples)
    history = History(policy.schema, policy.binding)
    policy.reset("lift")
    given_chunks = []
    for tick in range(5):
        stamp = 10**10 + tick * TICK_NS
        for signal, value in samples(tick).items():
            history.push(signal, stamp, value)
        given_chunks.append(policy.act(history.observe(tick, stamp)).values)
    assert same(own, given_chunks)


def test_the_same_episode_is_decided_the_same_and_another_instruction_otherwise(policy, samples):
    first = actions(policy, "lift", range(3), samples)
    assert same(first, actions(policy, "lift", range(3), samples))
    assert not np.array_equal(first[0], actions(policy, "lower", range(1), samples)[0])


def test_names_that_no_region_samples_are_passed_over(policy, samples):
    policy.reset("lift")
    alone = policy.act(samples(0)).values
    policy.reset("lift")
    extra = {**samples(0), "wrist_image": np.zeros(3), "instruction": "lower"}
    assert np.array_equal(policy.act(extra).values, alone)


def test_a_black_image_changes_the_action(policy, samples):
    policy.reset("lift")
    seen = policy.act(samples(0)).values
    policy.reset("lift")
    black = {**samples(0), "image": np.zeros((64, 64, 3), np.uint8)}
    assert not np.allclose(policy.act(black).values, seen, rtol=1e-3, atol=0)


def test_another_state_changes_the_action(policy, samples):
    policy.reset("lift")
    seen = policy.act(samples(0)).values
    policy.reset("lift")
    moved = {**samples(0), "state": samples(1)["state"]}
    assert not np.array_equal(policy.act(moved).values, seen)


def encoder_calls(policy, run) -> int:
    calls = []
    count = policy.model.codec("visual").encoder.register_forward_hook
    hook = count(lambda *_: calls.append(1))
    try:
        run()
    finally:
        hook.remove()
    return len(calls)


def test_each_camera_frame_is_encoded_once_though_two_observations_see_it(make_policy, samples):
    policy = make_policy(visual_steps=2)
    assert encoder_calls(policy, lambda: actions(policy, "lift", range(5), samples)) == 5
    assert encoder_calls(policy, lambda: actions(policy, "lift", range(2), samples)) == 2


def test_a_camera_that_is_refreshed_every_second_tick_is_encoded_every_second_tick(
    make_policy, samples
):
    policy = make_policy(visual={"period": 2})
    assert encoder_calls(policy, lambda: actions(policy, "lift", range(5), samples)) == 3


@pytest.mark.parametrize(
    "instruction, kind, text",
    [
        (
            "a" * 128,
            PromptTooLongError,
            "instruction: expected at most 128 tokens, got 129; "
            "use fewer words, such as those it was trained on (others may take a token for each "
            "letter), or a backbone with a longer text stream",
        ),
        (
            "lift\nand drop",
            SignalError,
            "signal 'instruction': expected printable characters only, got 'lift\\nand drop'",
        ),
        (
            "\x1b[2J",
            SignalError,
            "signal 'instruction': expected printable characters only, got '\\x1b[2J'",
        ),
        (
            "a" * 1025,
            SignalError,
            "signal 'instruction': expected at most 1024 bytes of text, got more",
        ),
        (7, SignalError, "signal 'instruction': expected text, got int"),
    ],
    ids=["tokens", "newline", "escape", "bytes", "number"],
)
def test_a_refused_instruction_leaves_the_policy_as_it_was(
    make_policy, samples, instruction, kind, text
):
    policy = make_policy(visual_steps=2)
    expected = actions(policy, "lift", range(3), samples)

    def refused_reset():
        with pytest.raises(kind) as error:
            policy.reset(instruction)
        assert str(error.value) == text
        assert policy.instruction == "lift"

    refusing = []
    calls = encoder_calls(
        policy,
        lambda: refusing.extend(actions(policy, "lift", range(3), samples, refused_reset)),
    )
    assert same(refusing, expected)
    assert calls == 3, "no frame that was seen is forgotten"


def test_without_an_instruction_nothing_is_decided(make_policy, samples):
    policy = make_policy()
    for _ in range(2):
        with pytest.raises(NoInstructionError) as error:
            policy.act(samples(0))
        assert str(error.value) == "policy: call reset(instruction) before act(observation)"
        policy.reset("lift")
        policy.act(samples(0))
        policy.forget()
        assert policy.instruction is None


def test_a_sample_that_is_missing_at_the_first_tick_is_named(policy, samples):
    policy.reset("lift")
    with pytest.raises(NotReadyError, match=r"expected signals \['image'\] too; got \['state'\]"):
        policy.act({"state": samples(0)["state"]})


def test_a_sample_that_is_missing_later_is_replaced_by_the_newest_before_it(policy, samples):
    policy.reset("lift")
    policy.act(samples(0))
    without = policy.act({"state": samples(1)["state"]}).values
    policy.reset("lift")
    policy.act(samples(0))
    again = {"state": samples(1)["state"], "image": samples(0)["image"]}
    assert np.array_equal(policy.act(again).values, without)


@pytest.mark.parametrize("state", [None, np.full(7, np.nan, np.float32)], ids=["missing", "NaN"])
def test_after_a_refused_sample_the_corrected_ones_are_decided_on(policy, samples, state):
    policy.reset("lift")
    expected = policy.act(samples(0)).values
    policy.reset("lift")
    wrong = {"image": samples(0)["image"]} if state is None else {**samples(0), "state": state}
    with pytest.raises((SignalError, NotReadyError)):
        policy.act(wrong)
    assert np.array_equal(policy.act(samples(0)).values, expected)


def test_a_refused_try_leaves_nothing_in_the_frames_of_the_next(make_policy, samples):
    policy = make_policy(visual_steps=2)
    expected = actions(policy, "lift", range(3), samples)
    policy.reset("lift")
    wrong = {"image": samples(9)["image"], "state": np.full(7, np.nan)}
    for tick in range(3):
        with pytest.raises(SignalError):
            policy.act(wrong)
        assert np.array_equal(policy.act(samples(tick)).values, expected[tick]), tick


def test_a_seed_makes_the_weights(make_policy, samples):
    first, again, other = (
        actions(make_policy(seed=seed), "lift", range(1), samples)[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_making_a_policy_draws_nothing_from_the_callers_random_numbers(make_policy):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    make_policy()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fresh_loops_change_no_action(make_policy, samples):
    one, three = make_policy(loops=1), make_policy(loops=3)
    with torch.no_grad():
        for name, parameter in one.model.own_parameters().items():
            if not name.startswith("runner"):
                three.model.own_parameters()[name].copy_(parameter)
    assert same(actions(one, "lift", range(2), samples), actions(three, "lift", range(2), samples))


def test_an_act_writes_into_no_sample(policy, samples):
    policy.reset("lift")
    given_samples = samples(0)
    policy.act(given_samples)
    assert all(np.array_equal(given_samples[name], value) for name, value in samples(0).items())


@pytest.mark.parametrize("size", [(480, 640), (256, 256), (64, 64)])
def test_the_shipped_schema_decides_on_every_accepted_picture(widowx, bridge, size):
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    policy = CanvasPolicy.untrained(schema, widowx, bridge, loops=1)
    policy.reset("lift")
    image = np.full((*size, 3), 90, np.uint8)
    state = np.array([0.3, 0, 0.1, 0, 0, 0, 1], np.float32)
    assert policy.act({"image": image, "state": state}).values.shape == (4, 7)
