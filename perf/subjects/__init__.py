"""One file a subject; see `perf.subject` for what each offers."""
