"""What threads wait on, and who polls meanwhile.

driver, leadership, sources   the one poll set of a process: who leads it, what is in it
monitor, poll, waiter         timers and ticks; poll sets of the platforms; one blocked wait of one thread
starting                      services that nobody asks for again, started once there is a thread to be had
helping                       what a thread that waits runs meanwhile in the place of a worker
aio, trio_loop, loops         event loops, asyncio's and trio's: how they harvest, and what must not block them
dispatcher                    how waits are decided, once, under one lock
waitable                      the base of what threads, callbacks and tasks wait on
registered_wait               waits at whose end a function is called
event, semaphore, mutex, timer   dispatcher objects, as users make them
exits                         threads, processes, futures and operations as dispatcher objects
wait                          waits for several objects, `sleep`
thread, apc                   what a thread has: its port, its slot, its APC queue
port, port_tasks, port_queue, slots   the completion port: taking out, by threads and by tasks; putting in; who is next
packet, port_source           what a port queues, and what it comes from
bridge                        a signal as a packet, a port as something to wait for
signal_handlers               handlers of signals that are in place for a while
afterwards                    what a signal handler may not do at once
checks, clock, lock   small tools
"""
