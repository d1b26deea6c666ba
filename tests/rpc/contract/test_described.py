"""What tools see of a contract's operations: `inspect`, `help`, `unittest.mock`."""

import inspect
import pydoc
from typing import Any
from unittest.mock import create_autospec

import pytest

from engine import Client, Interface, InvalidParameter, operation


class Thesaurus(Interface, id="example.Thesaurus"):
    """A contract."""

    @operation
    def synonyms(self, word: str, most: int = 5) -> list[str]:
        """Return other words."""

    @operation(name="other-name", idempotent=True)
    def antonyms(self, word: str) -> list[str]:
        """Return opposite words."""

    def plain(self, word: str) -> str:
        """Return the word."""


def test_operations_tell_what_their_functions_tell() -> None:
    """A decorated operation has the signature, the names, the text and the annotations of the method."""
    described: Any = Thesaurus.synonyms
    assert str(inspect.signature(described)) == "(self, word: str, most: int = 5) -> list[str]"
    assert described.__name__ == "synonyms"
    assert described.__qualname__ == "Thesaurus.synonyms"
    assert described.__module__ == __name__
    assert described.__doc__ == "Return other words."
    for each in (described, described.__wrapped__):
        assert inspect.get_annotations(each) == {"word": str, "most": int, "return": list[str]}
    assert Thesaurus.antonyms.__name__ == "antonyms"  # type: ignore[attr-defined]  # for tools
    with pytest.raises(InvalidParameter, match="belongs to an interface"):
        described(None, "a")


def test_help() -> None:
    """`help` shows a contract's operations as methods, with their signatures."""
    page = pydoc.plain(pydoc.render_doc(Thesaurus))
    for line in ("synonyms(self, word: str, most: int = 5) -> list[str]", "antonyms(self, word: str) -> list[str]"):
        assert line in page
    assert "Return opposite words." in page


def test_bound_operations() -> None:
    """A binding's operations tell their names, texts and signatures, as bound methods do: without `self`."""
    with Client("loopback://described") as client:
        binding: Any = client.bind(Thesaurus)
        assert str(inspect.signature(binding.synonyms)) == "(word: str, most: int = 5) -> list[str]"
        assert str(inspect.signature(binding.plain)) == "(word: str) -> str"
        names = [binding.synonyms.__name__, binding.antonyms.__name__, binding.plain.__name__]
        assert names == ["synonyms", "antonyms", "plain"]
        assert binding.synonyms.__qualname__ == "Thesaurus.synonyms"
        assert binding.plain.__doc__ == "Return the word."
        assert "synonyms(word: str, most: int = 5) -> list[str]" in pydoc.plain(pydoc.render_doc(binding.synonyms))
        assert client.bind("by.name").anything.__name__ == "anything"


@pytest.mark.parametrize("name", ["synonyms", "antonyms", "plain"])
def test_mocks_refuse_wrong_arguments(name: str) -> None:
    """What `create_autospec` makes of a contract takes the arguments that its operations take, and no others."""
    mock = create_autospec(Thesaurus, instance=True)
    getattr(mock, name)("word")
    getattr(mock, name)(word="word")
    for args, kwargs in [((), {}), ((1, 2, 3, 4), {}), (("word",), {"wrong": 1})]:
        with pytest.raises(TypeError):
            getattr(mock, name)(*args, **kwargs)
    whole = create_autospec(Thesaurus)
    getattr(whole.return_value, name)("word")
    with pytest.raises(TypeError):
        getattr(whole.return_value, name)()
