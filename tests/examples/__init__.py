"""The examples, as a user would run them."""
