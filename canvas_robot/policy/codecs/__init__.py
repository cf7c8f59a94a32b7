"""Codecs: one class in one file each, an encoder to tokens and its decoder side by side."""
