"""What an error quotes of a server's answer, against real HTTP."""

import json
from collections.abc import Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from icm_hpc.errors import RequestError
from icm_hpc.scoring.session import exchange, open_session

TEXT = 'The patient "Ann Onym" has\nפטרייה and 😀.'
IDS = [[4432, 118, 9, 70023, 5, 6, 1188]]
REPEATS: dict[str, tuple[object, Callable[[bytes], str]]] = {
    "json": ([TEXT], lambda body: body.decode()),
    "python": ([TEXT], lambda body: repr(json.loads(body))),
    "text": ([TEXT], lambda body: json.loads(body)["prompt"][0]),
    "unicode": ([TEXT], lambda body: json.dumps(json.loads(body), ensure_ascii=False)),
    "tokens": (IDS, lambda body: json.dumps(json.loads(body)["prompt"], separators=(",", ":"))),
    "one text": (TEXT, lambda body: body.decode()),
}


@pytest.mark.parametrize("form", REPEATS)
@pytest.mark.parametrize("status", [400, 500, 200])
async def test_no_error_quotes_a_prompt_whatever_a_server_repeats(form: str, status: int) -> None:
    prompt, repeat = REPEATS[form]

    async def refuse(request: web.Request) -> web.Response:
        said = f"not valid for {request.headers['Authorization']}: {repeat(await request.read())}"
        return web.Response(status=status, text=said, content_type="application/json")

    app = web.Application()
    app.add_routes([web.post("/", refuse)])
    async with TestServer(app) as server, open_session("a-key", timeout_s=5) as session:
        url, body = str(server.make_url("/")), json.dumps({"model": "m", "prompt": prompt}).encode()
        asking = exchange(session, "POST", url, body, headers={}, within_s=None, is_out_of_quota=lambda _: False)
        with pytest.raises(RequestError, match=r"not valid for Bearer \(the key\): ") as refused:
            await asking
    assert "which is not quoted" in str(refused.value)
    for part in ("Ann", "Onym", "has", "פ", "05e4", "4432", "1188"):
        assert part not in str(refused.value)
