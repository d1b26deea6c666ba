"""Completion ports, a thread pool and asynchronous RPC over ZeroMQ, for a service to embed."""
