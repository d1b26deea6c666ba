"""A service and its caller, watched by Prometheus and OpenTelemetry; `compose.yaml` starts all of it."""
