"""A client of the thesaurus: blocking calls, calls collected through a completion port, and a cancelled one.

python -m examples.thesaurus.client [ENDPOINT]
"""

import sys

from engine import Client, CompletionPort, RemoteFault
from examples.thesaurus.contract import Thesaurus


def main() -> None:
    """Ask for a few words, in several ways."""
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555"
    with Client(endpoint, timeout=10.0) as client, CompletionPort() as port:
        words = client.bind(Thesaurus)

        # One call, waited for.
        print("quick:", ", ".join(words.synonyms("quick")))

        # Many calls at once, collected in the order in which their answers arrive.
        asked = ["quick", "fast", "rapid", "slow"]
        for number, word in enumerate(asked):
            words.synonyms.begin(word, notify=port.packet(key=number))
        for _ in asked:
            packet = port.get(timeout=5.0)
            print(f"{asked[packet.key]}:", ", ".join(packet.overlapped.complete()) or "(unknown)")

        # What a routine raises arrives as a fault that names it.
        try:
            words.entry("slow")
        except RemoteFault as fault:
            print("no entry:", fault.type_name, fault.text)

        # A call whose answer nobody wants any more.
        call = words.longest_chain.begin("quick")
        if not call.wait(timeout=5.0):
            call.cancel(abort=True)
        print("chain:", " -> ".join(call.complete()))


if __name__ == "__main__":
    main()
