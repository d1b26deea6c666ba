"""What type checkers make of contracts and bindings."""
