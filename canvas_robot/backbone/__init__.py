"""The frozen CogVideoX: loading, looped block and graft, and the VAE folded for single frames."""
