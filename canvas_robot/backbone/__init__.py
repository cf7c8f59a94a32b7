"""The frozen CogVideoX: loading, the looped block and the graft, and the VAE folded for single frames."""
