"""What the tests of the command line serve."""

from engine import Server


class Words:
    """A thesaurus."""

    def synonyms(self, word: str) -> list[str]:
        return {"quick": ["fast", "swift"]}.get(word, [])

    def length(self, values: list[int]) -> int:
        return len(values)

    def text(self) -> str:
        return "plain"

    def missing(self) -> None:
        raise LookupError("no such word")


def make() -> Server:
    server = Server("tcp://127.0.0.1:*")
    server.register("made", Words())
    return server


instance = Words()
number = 7
