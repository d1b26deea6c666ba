"""The contract that the service and its clients share: what can be asked, and with which types."""

import msgspec

from engine import Interface, operation


class Entry(msgspec.Struct):
    """What the thesaurus knows of a word."""

    word: str
    synonyms: list[str]
    lookups: int


class Thesaurus(Interface, id="example.Thesaurus", version=(1, 0)):
    """Synonyms of words."""

    @operation
    def synonyms(self, word: str) -> list[str]:
        """Return the synonyms of `word`, none if it is not known."""
        raise NotImplementedError

    @operation
    def entry(self, word: str) -> Entry:
        """Return all that is known of `word`; raises KeyError at the server if it is not known."""
        raise NotImplementedError

    @operation
    def add(self, word: str, synonym: str) -> None:
        """Add a synonym."""
        raise NotImplementedError

    @operation
    def longest_chain(self, word: str) -> list[str]:
        """Follow synonyms from `word` as far as they go without a repeat. Slow; answered in the background."""
        raise NotImplementedError
