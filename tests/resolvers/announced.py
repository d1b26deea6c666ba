"""A server in a process of its own, announced in etcd with a short lease, until its input ends or it is killed."""

import sys

from engine import Server
from engine.resolvers import Etcd

endpoint, prefix = sys.argv[1:]
with Server("tcp://127.0.0.1:*", announce=Etcd(prefix, endpoints=[endpoint], ttl=2)) as server:
    server.listen()
    sys.stdin.read()
