"""The frozen backbone: loading it, looping its blocks, and the VAE folded for single frames.

Looping (loops, blocks, graft, freeze sets, schedules, loop checkpoints) serves any transformer.
"""
