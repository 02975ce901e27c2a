"""Shared parts of the web pages: the guard that checks requests, and the listening socket."""
