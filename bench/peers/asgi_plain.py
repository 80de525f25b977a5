"""Peer: plain ASGI on uvicorn (uvloop, httptools) that calls `lightgbm.Booster.predict` on one
numpy row.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import uvicorn

booster = lgb.Booster(model_file=sys.argv[2])
rows = np.random.default_rng(1).gamma(1.0, 10.0, (1024, booster.num_feature())).astype(np.float32)
turn = 0


async def app(
    scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    global turn
    if scope["type"] != "http":
        return
    turn = (turn + 1) % len(rows)
    risk = booster.predict(rows[turn : turn + 1], num_threads=1)[0]
    status = 200 if risk <= 1.0 else 429
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
    )
