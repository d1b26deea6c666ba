"""Tests of a service in several processes, with real ones."""
