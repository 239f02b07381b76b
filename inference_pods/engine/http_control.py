"""What is asked of a request that runs already: another level.

PUT /requests/ID/level with {"level": "int4"}; ID is the x-request-id that the request came with (of several with one id
all are meant). From the next token on it is computed at that level, over the keys and values that it has; the header
x-level-served of its answer still says where it began. 404: nothing of that name waits or runs; 400 names the levels.

The route is the engine's alone: routers pass only the inference routes on, so clients of a model do not reach it.
"""

from __future__ import annotations

from aiohttp import web

from inference_pods.engine.bodies import LevelBody
from inference_pods.engine.http_common import SERVICE, read_body
from inference_pods.protocol import ROUTE_REQUEST_LEVEL

routes = web.RouteTableDef()


@routes.put(ROUTE_REQUEST_LEVEL)
async def change_level(request: web.Request) -> web.Response:
    """How many runs were switched (several for `n` or `best_of`)."""
    body = await read_body(request, LevelBody)
    runs = request.app[SERVICE].change_level(request.match_info["request_id"], body.level)
    return web.json_response({"level": body.level, "runs": runs})
