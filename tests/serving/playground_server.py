"""A real server in a process of its own: `python playground_server.py NAME=RUN ...` prints its port."""

import asyncio
import sys
from pathlib import Path

import uvicorn

from bertlora.serving.app import make_app
from bertlora.serving.fleet import Fleet
from bertlora.serving.service import Service


async def serve(runs: list[str]) -> None:
    fleet = Fleet()
    for name, _, path in (run.partition("=") for run in runs):
        fleet.load(name, Path(path))
    server = uvicorn.Server(uvicorn.Config(make_app(Service(fleet)), port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
