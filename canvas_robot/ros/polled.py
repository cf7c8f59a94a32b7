"""Polled: the callback group of what is taken when it is wanted, by whoever wants it."""

from __future__ import annotations

from typing import final

from rclpy.callback_groups import CallbackGroup


@final
class Polled(CallbackGroup):
    """What no executor waits for: waking one for each message costs more than the message."""

    def can_execute(self, entity) -> bool:
        return False

    def beginning_execution(self, entity) -> bool:
        return False
