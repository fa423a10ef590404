"""The ROS 2 nodes, and all that needs ROS."""
