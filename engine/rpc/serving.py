"""What a call that a routine makes takes over from the call that the routine serves: time left, and metadata.

The shorter of the two times counts; of the metadata, texts of the outer call are overlaid by those of the inner one's
client, and these by the inner call's own. A routine that was answered already, and works on in the background, passes
on metadata only: its caller waits no longer.
"""

from collections.abc import Mapping

from .server.call import ServerCall
from .server.extras import is_open


def inherit(
    outer: ServerCall, timeout: float | None, metadata: dict[str, str] | None, own: Mapping[str, str]
) -> tuple[float | None, dict[str, str] | None]:
    """Return the timeout and the metadata of a call that is begun while `outer` is being served.

    Args: `own` is what the inner call's connection has said already, and need not be said again.
    """
    outer._answers.admission.called_out()
    left = outer.time_left() if is_open(outer) else None
    if left is not None and (timeout is None or left < timeout):
        timeout = left
    merged = {name: text for name, text in outer.metadata.items() if name not in own} | (metadata or {})
    return timeout, merged or None
