"""Rollouts in simulation, and the report of a run; importing this loads none of it."""
