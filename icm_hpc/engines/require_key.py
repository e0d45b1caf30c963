"""ASGI middleware that vLLM loads by name: every route, whatever it is, demands the run's key."""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequireKey:
    """Answers 401 unless the request has `Authorization: Bearer <key>`; without a key set, it answers nobody."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ.get('VLLM_API_KEY', '')}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it holds the key."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent = dict(scope.get("headers", [])).get(b"authorization", b"")
        if self._wanted != b"Bearer " and hmac.compare_digest(sent, self._wanted):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"the run's key is wanted\n"})
        else:
            await send({"type": "websocket.close", "code": 1008})
