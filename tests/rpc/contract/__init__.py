"""Tests of contracts: what they may say, and what travels."""
