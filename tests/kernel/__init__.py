"""Tests of the kernel: one class a section of `docs/semantics/completion-port.md`, one promise a test."""
