"""Public data sets: catalog, download and unpacking."""
