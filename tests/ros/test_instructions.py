"""Laws of Instructions: the last that is asked for counts, and each is accounted for by number."""

from canvas_robot.ros.decisions import InstructionState, InstructionTurn
from canvas_robot.ros.instructions import Asked, Instructions


def test_of_several_the_last_is_read_once():
    instructions = Instructions()
    assert instructions.read() is None and instructions.newest == ""
    assert [instructions.ask(text) for text in ("push", "pull")] == [1, 2]
    assert instructions.read() == Asked(2, "pull")
    assert instructions.read() is None


def test_the_newest_is_the_one_that_is_asked_for_then_read_then_followed():
    instructions = Instructions()
    instructions.ask("push")
    assert instructions.newest == "push"
    asked = instructions.read()
    assert (instructions.newest, instructions.followed) == ("push", None)
    instructions.ask("pull")
    assert instructions.newest == "pull"
    instructions.take(asked)
    assert (instructions.newest, instructions.followed) == ("pull", "push")
    instructions.take(instructions.read())
    assert (instructions.newest, instructions.followed) == ("pull", "pull")


def test_a_refused_one_leaves_what_is_followed_until_another_is_taken():
    instructions = Instructions()
    instructions.ask("push")
    instructions.take(instructions.read())
    instructions.ask("fly")
    instructions.refuse(instructions.read(), "too long")
    assert (instructions.newest, instructions.followed) == ("push", "push")
    assert instructions.state == InstructionState(1, "too long")
    assert instructions.turn == InstructionTurn(taken=1, refused=2)
    instructions.ask("pull")
    instructions.take(instructions.read())
    assert instructions.state == InstructionState(1, "")
    assert instructions.turn == InstructionTurn(taken=3, refused=2)


def test_one_that_could_not_be_read_is_asked_for_again_unless_another_is():
    instructions = Instructions()
    instructions.ask("push")
    instructions.put_back(instructions.read())
    asked = instructions.read()
    assert asked == Asked(1, "push")
    instructions.ask("pull")
    instructions.put_back(asked)
    assert instructions.read() == Asked(2, "pull")


def test_under_a_blank_one_nothing_is_followed():
    instructions = Instructions()
    for text in ("push", "  "):
        instructions.ask(text)
        instructions.take(instructions.read())
    assert (instructions.followed, instructions.newest) == (None, "")
    assert instructions.turn.taken == 2
