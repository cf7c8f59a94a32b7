"""Fixtures that tests outside tests/ros share with it: a policy node over real DDS."""

from tests.ros.conftest import active_policy, domain_id, monitor, robot, start_policy

__all__ = ["active_policy", "domain_id", "monitor", "robot", "start_policy"]
