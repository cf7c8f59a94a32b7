"""Recorded episodes from RLDS datasets and video files; importing this loads no TensorFlow."""
