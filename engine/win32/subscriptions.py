"""Being told that the client of a call has cancelled it, or is gone.

Source: "RpcServerSubscribeForNotification", "RpcServerUnsubscribeForNotification", "RPC_NOTIFICATIONS".
"""

from .. import EventKind, ServerCall
from .async_state import RPC_ASYNC_NOTIFICATION_INFO, state_of, target
from .call_attributes import served
from .constants import (
    RPC_S_CANNOT_SUPPORT,
    RPC_S_OK,
    RpcNotificationCallCancel,
    RpcNotificationClientDisconnect,
)
from .errors import returns_status
from .values import Box

__all__ = ["RpcServerSubscribeForNotification", "RpcServerUnsubscribeForNotification"]

_KINDS = {
    RpcNotificationClientDisconnect: EventKind.CLIENT_DISCONNECT,
    RpcNotificationCallCancel: EventKind.CLIENT_CANCEL,
}


@returns_status
def RpcServerSubscribeForNotification(
    Binding: ServerCall | None, Notification: int, NotificationType: int, NotificationInfo: RPC_ASYNC_NOTIFICATION_INFO
) -> int:
    """Be told when the client cancels the call, or is gone; at once if it happened before.

    Args:
        Binding: of the call; None for the call that the calling thread serves.
        Notification: `RpcNotificationClientDisconnect`, `RpcNotificationCallCancel`, or both by `|`.
        NotificationType, NotificationInfo: how to tell, as in an `RPC_ASYNC_STATE`; looked at now only. A routine gets
            the handle of an asynchronous call, the binding handle of another; None; and `RpcClientDisconnect` or
            `RpcClientCancel`.
    Closing the call ends its subscriptions.
    Returns: 0; 1764 for another notification, or window messages; 87 without a type, for both by an event, and for a
        target that is none; 1915 for a second time; 1914 if the call was closed; 1725 and 1702 as
        `RpcServerTestCancel`.
    """
    call = served(Binding)
    kinds = [kind for number, kind in _KINDS.items() if Notification & number]
    if not kinds or Notification & ~(RpcNotificationClientDisconnect | RpcNotificationCallCancel):
        return RPC_S_CANNOT_SUPPORT
    call.subscribe(kinds, target(NotificationType, NotificationInfo, state_of(call) or call))
    return RPC_S_OK


@returns_status
def RpcServerUnsubscribeForNotification(
    Binding: ServerCall | None, Notification: int, NotificationsQueued: Box | None
) -> int:
    """End a subscription; put into the box how many notifications were queued: 0 or 1. One that is queued still comes.

    Args: `Notification`: one, not both.
    Returns: 0; 1764 for another notification; 1915 if there is no such subscription; 1914, 1725 and 1702 as above.
    """
    call = served(Binding)
    kind = _KINDS.get(Notification)
    if kind is None:
        return RPC_S_CANNOT_SUPPORT
    queued = call.unsubscribe(kind)
    if NotificationsQueued is not None:
        NotificationsQueued.value = queued
    return RPC_S_OK
