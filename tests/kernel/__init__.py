"""Tests of the kernel: one class a section of the reference, one promise a test."""
