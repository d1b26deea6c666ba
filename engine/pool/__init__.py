"""Who runs things.

pool         the thread pool: limits, submission, the end
environment  what callback objects have in common
work, timer, wait, io   the callback objects, by what makes them run
source       their base
instance     the running callback, as it sees itself
cleanup      groups of objects that are released together
executor     the pool as a `concurrent.futures.Executor`
dispatch     the port: who runs next, and on how many threads
backlog      the queue, and what each object has in it
runner, worker   the threads
"""
