"""Tests of resolvers and announcers against the real registries, which each test file starts; see `daemons.py`."""
