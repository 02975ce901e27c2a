"""Files: atomic writes, TOML, tensors, and weights from strangers."""
