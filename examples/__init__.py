"""Examples: small programs that show the engine at work."""
