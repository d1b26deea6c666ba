"""Networks that fail: between namespaces that the tests make."""
