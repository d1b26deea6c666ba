"""Tests of pipes: one class a section of the reference, one promise a test."""
