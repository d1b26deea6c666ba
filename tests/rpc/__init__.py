"""Tests of the calls: one class a section of the reference, one promise a test."""
