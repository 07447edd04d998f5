"""What many write first: a FastAPI handler that calls transformers' pipeline, a request at a time.

python benchmarks/pipeline_server.py MERGED
"""

import json
import socket
import sys
from typing import Any

import transformers
import uvicorn
from fastapi import FastAPI


def main() -> None:
    """Serves on a free port, and prints its URL."""
    pipe = transformers.pipeline("text-classification", model=sys.argv[1], device="cpu", top_k=None)
    app = FastAPI()

    @app.post("/predict")
    async def predict(body: dict[str, Any]) -> list[Any]:
        return list(pipe(body["texts"], truncation=True))

    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
