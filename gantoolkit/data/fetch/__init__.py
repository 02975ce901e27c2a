"""Public data sets: download, unpack, check."""
