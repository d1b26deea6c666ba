"""How a call ended, in one word, for those who watch calls: `engine.otel` and `engine.prometheus`."""

from .errors import is_collected, status_in
from .rpc.errors import RemoteFault
from .status import Status


def status_name(error: BaseException | None, at_client: bool) -> str | None:
    """Return the name of the status with which a call ended, as an interceptor saw it: "OK" if nothing was raised.

    None: no caller will collect the call, as the process ends. At a client that is its outcome; at a server, what the
    routine answers: an outcome that it collected of a call of its own, and let pass, is a fault of this one.
    """
    if error is None:
        return "OK"
    if issubclass(type(error), GeneratorExit):
        return None
    status = int(RemoteFault.status)
    if at_client or not is_collected(error):
        status = status_in(error, status)
    name = Status.name_of(status)
    return str(status) if name == "STATUS" else name
