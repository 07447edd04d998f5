"""The server against its own description: schemathesis makes requests from /openapi.json, good ones and bad ones.

Each answer must have a status, a content type and a body that the description names, and no status of a failed server.
"""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.failures import Failure, FailureGroup

# A bad request may be refused for more reasons than the description has, and a good one as well.
LEFT_OUT = ("positive_data_acceptance",)
MODES = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


def disagreements(app: Any, examples: int, headers: dict[str, str]) -> tuple[int, list[str]]:
    """Returns how many requests were sent, and where the answers do not fit the description.

    Args:
        app: the application.
        examples: the most requests of each operation and kind, good or bad.
        headers: of every request.
    """
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    left_out = [CHECKS.get_one(name) for name in LEFT_OUT]
    faults: list[str] = []
    sent = 0
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # an error would fail here
        asks = operation.body or list(operation.iter_parameters())
        for mode in MODES if asks else MODES[:1]:

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal sent
                sent += 1
                case.call_and_validate(headers=headers, excluded_checks=left_out)

            try:
                ask()
            except Unsatisfiable:  # there is no bad request
                continue
            except (Failure, FailureGroup, ExceptionGroup) as error:
                faults.append(f"{operation.label}: {error}")
    return sent, faults
