"""The HTTP application: the contracts behind one gate."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from bertlora.errors import BertloraError
from bertlora.serving import playground
from bertlora.serving.contracts import open_inference, own, tei, vllm
from bertlora.serving.faults import Faults
from bertlora.serving.gate import Gate
from bertlora.serving.hosts import Hosts
from bertlora.serving.limits import Limits
from bertlora.serving.operations import operate
from bertlora.serving.service import Service

DESCRIPTION = (
    "LoRA classifiers on one base model. An error says what, where, and what was expected. "
    "If the server has an API key, requests send it as `Authorization: Bearer KEY`."
)


def make_app(
    service: Service,
    *,
    key: str = "",
    runs: Path | None = None,
    limits: Limits | None = None,
    hosts: Sequence[str] = (),
) -> FastAPI:
    """Returns the application.

    Args:
        service: answers questions.
        key: what clients must send as `Authorization: Bearer KEY`; empty lets all in.
        runs: the folder whose runs may be loaded by a call; None allows none. A call needs the key as well.
        limits: the largest request; None takes the defaults.
        hosts: names under which clients may ask; addresses and `localhost` need none. Without any, a server with a key
            answers under every name: a page of another site does not have the key.
    """
    limits = limits or Limits()
    # The pages of FastAPI at /docs and /redoc load scripts from the network.
    app = FastAPI(
        title="bertlora",
        version=version("bertlora"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the host and the query that a client sent
    )
    clients = tei, vllm, open_inference
    faults = Faults({path: contract.fault for contract in clients for path in contract.PATHS}, own.fault)
    for kind in (RequestValidationError, HTTPException, BertloraError):
        app.add_exception_handler(kind, faults)
    app.include_router(own.router(service, limits, runs if key else None))
    for contract in clients:
        app.include_router(contract.router(service, limits))
    app.include_router(playground.router)
    known = None if key and not hosts else Hosts(hosts)
    app.add_middleware(Gate, key=key, limits=limits, faults=faults, hosts=known)
    operate(app, service)
    return app
