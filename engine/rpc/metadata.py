"""The texts that travel beside calls and connections."""

from transport.foreign import shown, text_of

from ..errors import InvalidArgumentType


def check_metadata(value: dict[str, str]) -> dict[str, str]:
    """Return a copy of `value`, of plain `str`, if it maps texts to texts that can be sent.

    Raises: `InvalidArgumentType` if it does not.
    """
    try:
        texts = dict(value.items())
        "".join((*texts, *texts.values())).encode()
        # Texts of classes of their own, as of a template engine or an enum, do not travel as they are.
        return {str.__str__(name): str.__str__(text) for name, text in texts.items()}
    except (AttributeError, TypeError, ValueError) as error:
        why = text_of(error)
        raise InvalidArgumentType(f"metadata must be a dict of texts, not {shown(value, 100)}: {why}") from None
