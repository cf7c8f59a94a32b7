"""What is asked of the process that holds a model, and what it answers."""

from __future__ import annotations

from canvas_robot.policy.exchange import Message
from canvas_robot.policy.protocol import Imagined
from canvas_robot.signals import ActionChunk, Frames, GoingOn


class Reset(Message):
    """Starts an episode."""

    instruction: str


class Expect(Message):
    """What `Act` will most likely be about.

    frames: by region; None where they are the same as in the last request.
    """

    tick: int
    stamp_ns: int
    frames: dict[str, Frames | None]


class Act(Message):
    """Decides on one observation; `frames` as of Expect."""

    tick: int
    stamp_ns: int
    frames: dict[str, Frames | None]
    going_on: GoingOn | None


class Work(Message):
    """Does what no decision waits for."""


class Forget(Message):
    """Ends the episode."""


class Imagine(Message):
    """Goes on predicting pictures for about so long."""

    seconds: float


Request = Reset | Expect | Act | Work | Forget | Imagine


class Ready(Message):
    """The policy is loaded.

    facts: pickled Facts; their many types are no others to the process that asked, whose own code
    made them.
    """

    facts: bytes


class Log(Message):
    """What is said meanwhile; it answers nothing."""

    level: int
    line: str


class Soon(Message):
    """The answer to Act is about to come; it answers nothing."""


class Done(Message):
    """It was done, and there is nothing to tell."""


class Decided(Message):
    """Answers Act."""

    chunk: ActionChunk


class Pictured(Message):
    """Answers Imagine."""

    imagined: Imagined | None


class Refused(Message):
    """What was asked is wrong; the policy stays as it was."""

    why: str


class Failed(Message):
    """The model failed, or could not be loaded."""

    why: str


Answer = Ready | Log | Soon | Done | Decided | Pictured | Refused | Failed
