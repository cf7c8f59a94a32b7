"""`python -m canvas_robot.cli`."""

from canvas_robot.cli import main

main()
