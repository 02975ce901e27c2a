"""Files: atomic writes, TOML, tensors, and untrusted weights."""
