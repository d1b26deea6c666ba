"""Where a client's servers are found: a resolver for each registry that there is anyway.

    dns     names that have addresses, or SRV records: Kubernetes' headless services, Consul, Route 53
    seed    a fleet's own members, which know of each other by `engine.processes`: `members` is what they serve
    etcd    etcd, where servers announce themselves

    client = Client(Dns("words.prod.svc.cluster.local", 5555))

Nothing is loaded before it is needed: what a registry's library is, only its file knows. A resolver of one's own is any
object with a method `run(discovery)`, see `engine.Resolver`; what announces servers has a method `announce(presence)`,
see `engine.Announcer`.
"""

from .dns import Dns
from .etcd import Etcd
from .members import Members, MembersRoutines
from .seed import Seed

__all__ = ["Dns", "Etcd", "Members", "MembersRoutines", "Seed"]
