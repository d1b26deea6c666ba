"""Tests of what a server offers beside plain calls: subscriptions, conditions, contexts, order."""
