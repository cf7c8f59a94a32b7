"""Laws of settings: numbers read back, what contradicts itself is refused by name."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.evaluation.eval_settings import (
    EvalSettings,
    EvalSettingsError,
    Start,
    parse_episodes,
    parse_kwargs,
    said_episodes,
)

CHECKPOINT = {"envs": ("A-v0",), "policy": "folder", "episodes": (1, 2)}


def settings(**changes) -> EvalSettings:
    return EvalSettings(**{**CHECKPOINT, **changes})


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30))
def test_numbers_read_back_as_they_were_said(numbers):
    assert list(parse_episodes(said_episodes(numbers))) == numbers


@pytest.mark.parametrize(
    "text, numbers",
    [("0-3", (0, 1, 2, 3)), ("5", (5,)), ("7-7, 2-3,9", (7, 2, 3, 9))],
)
def test_ranges_hold_both_ends(text, numbers):
    assert parse_episodes(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "1,,2", "3-1", "0-1000000", "1.5", "²"])
def test_other_texts_are_no_numbers(text):
    with pytest.raises(EvalSettingsError, match="--episode-ids: expected"):
        parse_episodes(text)


def test_keywords_are_read_as_yaml():
    words = ["size=[96, 96]", "shadows=true", "obs=state", "rate=0.5", "equation=a=b"]
    assert parse_kwargs(words) == {
        "size": [96, 96],
        "shadows": True,
        "obs": "state",
        "rate": 0.5,
        "equation": "a=b",
    }


@pytest.mark.parametrize(
    "word", ["shadows", "=1", "two words=1", "a={", "a=!!python/name:os.abort"]
)
def test_other_words_are_no_keywords(word):
    with pytest.raises(EvalSettingsError, match="--env-kwargs: "):
        parse_kwargs([word])


def test_episodes_come_by_environment_number_and_goal():
    wanted = settings(envs=("A-v0", "B-v0"), episodes=(4, 2), compare_instructions=True)
    assert wanted.starts == (
        Start(0, 4, 0), Start(0, 4, 1), Start(0, 2, 0), Start(0, 2, 1),
        Start(1, 4, 0), Start(1, 4, 1), Start(1, 2, 0), Start(1, 2, 1),
    )  # fmt: skip


def test_settings_go_through_json():
    wanted = settings(env_kwargs={"image_size": [96, 96]}, instruction="go", seed=3)
    assert msgspec.json.decode(msgspec.json.encode(wanted), type=EvalSettings) == wanted


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"envs": ()}, "env: expected at least one id"),
        ({"envs": ("A-v0", "A-v0")}, "env: expected at least one id, each once"),
        ({"episodes": ()}, "episodes: expected at least one number"),
        ({"episodes": (1, 1)}, "episodes: expected at least one number, each once"),
        ({"episodes": (-1,)}, "episodes: expected numbers from 0"),
        ({"episodes": (2**31,)}, "episodes: expected numbers from 0"),
        ({"steps_per_chunk": 0}, "steps_per_chunk: expected at least 1, got 0"),
        ({"threads": 0}, "threads: expected at least 1, got 0"),
        ({"max_steps": -1}, "max_steps: expected at least 0, got -1"),
        (
            {"instruction": "go", "shuffle_instructions": True},
            "--instruction and --shuffle-instructions: each says what the policy is told",
        ),
        ({"policy": "zero", "black_image": True}, "--black-image: zero hears and sees nothing"),
        ({"policy": "expert", "instruction": "go"}, "--instruction: expert hears and sees nothing"),
        ({"policy": "random", "steps_per_chunk": 2}, "--steps-per-chunk: random hears"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, text):
    with pytest.raises(EvalSettingsError, match=text):
        settings(**changes)


def test_an_expert_may_be_asked_for_another_goal():
    assert len(settings(policy="expert", compare_instructions=True).starts) == 4
