"""ROS 2: messages, inputs, the policy node, the simulated robot.

The only folder that imports rclpy.
"""
