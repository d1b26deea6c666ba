"""Who runs things.

pool              the thread pool: limits, submission, the end
work, timer, wait, io   the callback objects, by what makes them run
callback_object   their base: environment, waiting, closing
core              the inside of a callback object: what it counts, where it runs; the members of a group
cleanup           groups of objects that are released together
executor, future  the pool as a `concurrent.futures.Executor`
intake            how callbacks enter: the queue's limit, the policy, run times
dispatch          the port: who runs next, and on how many threads
fair_queue        the queue, and what each object has in it
run_time          how long a function runs: learned from its runs
workers, worker   the threads: how many there are, and what each does
running           which thread runs what; the running callback, as it sees itself
"""
