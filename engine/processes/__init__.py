"""A service in several processes of one machine: each has a server of its own, and clients spread their calls over all.

    supervisor  starts the processes, and starts those again that end; what `serve` runs
    process     one of them, as the supervisor sees it
    inside      what runs in it

    def make_server(*endpoints):                    # called in each process
        server = Server(*endpoints)
        server.register(Thesaurus, Words())
        return server

    if __name__ == "__main__":
        serve(make_server, "tcp://*:5555", processes=4)

A client follows them all by `Client(Seed("tcp://host:5555"))`.
"""

from .supervisor import Supervisor, SupervisorStatistics, serve

__all__ = ["Supervisor", "SupervisorStatistics", "serve"]
