"""Tests of the client: its calls from beginning to completion, and what ends them."""
