"""Programs that run for as long as they are told, by a seed that repeats their plan: `make chaos`, `fuzz`, `leaks`."""
