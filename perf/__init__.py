"""The performance harness: one scenario a question, subjects side by side, every answer checked.

    cli         list | run | compare | report | profile
    scenario    what a scenario is; scenarios/ has one file a question
    subject     what a subject is; subjects/ has one file a library, ours and the floor among them
    runner      rounds of fresh processes, subjects interleaved
    lab         what a scenario is handed: servers and measuring processes, each started for it alone
    children    the parent's side of a process;  worker: the process's own side
    counting    steps of a call: Python and C calls, from inside; system calls and switches, by the kernel
    record      what a run leaves behind: samples, medians, ratios, machine, versions, settings
    goals       what the engine is to reach, held against a record;  best: ours against the best peer
    compare     two records: what changed, and what is only noise
    page        the HTML report;  terminal: the same tables and the progress bars

Arrows: cli -> everything; runner -> lab -> children; scenarios and subjects -> lab, measure, counting.
A measuring process loads `worker`, its scenario and its subject, and neither tables nor plots.
"""
