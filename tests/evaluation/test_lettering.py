"""Laws of lettering: a font that has a letter is found, what none has is escaped, room is kept."""

from pathlib import Path

import pytest
from matplotlib import rcParams
from matplotlib.font_manager import fontManager

from canvas_robot.evaluation.lettering import Lettering, lettering, width_of

HAND, FACE = "手", "🤖"


def test_plain_letters_need_no_other_font():
    assert lettering(["camera", "рука", "ذراع"]) == Lettering(
        tuple(rcParams["font.family"]), frozenset()
    )


def test_letters_that_no_font_has_are_named(own_fonts):
    found = lettering([f"{HAND} a", FACE])
    assert found.lacking == {HAND, FACE}
    assert found.families == tuple(rcParams["font.family"])


def test_a_font_that_has_them_comes_after_matplotlibs_own(hand_font):
    found = lettering([f"{HAND} a", FACE])
    assert found.families == (*rcParams["font.family"], hand_font)
    assert found.lacking == {FACE}  # the font has it, too, but without an outline


def test_a_font_whose_file_is_gone_is_passed_over(hand_font):
    entry = next(entry for entry in fontManager.ttflist if entry.name == hand_font)
    Path(entry.fname).unlink()
    assert lettering([HAND]).lacking == {HAND}


def test_texts_that_would_look_alike_show_where_they_differ():
    letters = Lettering(("any",), frozenset({HAND}))
    names = [f"region number {i} with words" for i in range(12)]
    shown = letters.shown_apart([*names, "arm", f"{HAND} of the left arm"], most=16)
    assert shown["arm"] == "arm" and shown[names[3]] == "…mber 3 with wo…"
    assert len(set(shown.values())) == 14
    assert all(width_of(text) <= 16 for text in shown.values())


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("camera", None, "camera"),
        ("camera", 6, "camera"),
        ("camera", 5, "ca…ra"),
        ("camera", 4, "ca…a"),
        (HAND, None, r"\u624b"),
        (f"{FACE} arm", 14, r"\U0001f916 arm"),
        (f"left {HAND}{HAND} arm", 20, r"left …\u624b arm"),
        ("語語語", 6, "語語語"),
        ("語語語", 5, "語…語"),
    ],
)
def test_what_is_shown_of_a_text(text, most, shown):
    letters = Lettering(("any",), frozenset({HAND, FACE}))
    assert letters.shown(text, most) == shown
    assert most is None or width_of(shown) <= most


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("camera", "camera"),
        ("wrist_camera", "wrist_\ncamera"),
        (HAND * 2, "\\u624b\n\\u624b"),
        (f"a{HAND}{HAND}", "a\\u624b\n\\u624b"),
    ],
)
def test_a_long_text_takes_two_lines_and_no_escape_is_broken(text, shown):
    letters = Lettering(("any",), frozenset({HAND}))
    assert letters.on_lines(text, most=20, on_a_line=8) == shown
