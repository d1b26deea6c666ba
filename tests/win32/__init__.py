"""Tests of the Windows names."""
