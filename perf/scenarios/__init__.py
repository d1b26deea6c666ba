"""One file a question; see `perf.scenario` for what each offers."""

__all__ = ["ORDER"]

# How they are listed and run: what a visitor asks first comes first.
ORDER = (
    "latency", "throughput", "counts", "stdlib", "blocking", "idle", "notify", "threads", "payload", "open_loop",
    "gil_hog", "busy", "fairness", "overload", "clients", "growth", "port", "pool", "memory", "import_time", "peers",
    "unix_peers", "tls", "fleet", "uneven", "drain", "processes", "soak",
)  # fmt: skip
