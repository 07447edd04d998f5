"""The contracts, spoken by their real clients to `bertlora serve` in a process of its own."""

import contextlib
import http.client
import json
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import start
from served import save_runs

from bertlora.model.explain import explain
from bertlora.run.loaded import Run

pytest.importorskip("fastapi")
hub = pytest.importorskip("huggingface_hub")
triton = pytest.importorskip("tritonclient.http")

KEY = "the-key-of-this-test"
SECRET = "xyzzy-secret-words"
TEXTS = ["a joy from the start", "dull ☺ and lifeless", "long " * 200]
SECONDS = ["it was good", "x", "a second text"]
ROOT = Path(__file__).parents[2]
DOCUMENTS = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/serving.md"))


@pytest.fixture(scope="module")
def runs(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return save_runs(tmp_path_factory.mktemp("contracts"), tiny)


@pytest.fixture(scope="module")
def url(runs: dict[str, Run]) -> Iterator[str]:
    words = [f"{name}={run.path}" for name, run in runs.items()]
    with start("serve", *words, "--port", 0, "--precision", "fp32", "--json", env={"BERTLORA_API_KEY": KEY}) as process:
        line = b""
        while not line.endswith(b"\n"):
            part = process.stdout.read(4096)
            assert part, process.stderr.readall()
            line += part
        yield json.loads(line)["url"]
        process.send_signal(signal.SIGTERM)
        log = process.stdout.readall() + process.stderr.readall()
    assert process.returncode == 0
    assert SECRET.encode() not in log


def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}  # a new one each time, because Triton's client adds to it


def call(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Returns the status and the JSON of an answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    connection.request(method, path, content, {"Content-Type": "application/json", **bearer(), **headers})
    response = connection.getresponse()
    found = response.read()
    connection.close()
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    return response.status, json.loads(found or b"null")


def post(url: str, path: str, body: Any) -> Any:
    status, found = call(url, "POST", path, body)
    assert status == 200, found
    return found


def pairs_of(run: Run) -> list[str] | None:
    return SECONDS if run.manifest.pairs else None


def logits(run: Run) -> Any:
    return run.model.logits(run.model.reader.read(TEXTS, pairs_of(run)))


def scores(run: Run) -> Any:
    """(B, K) what a run says of the texts."""
    return logits(run) if run.manifest.task == "regression" else run.predict_proba(TEXTS, pairs_of(run))


def nearly(found: Any, expected: Any) -> bool:
    """Returns whether two values of JSON are equal, except for 1e-5 in their numbers."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(nearly(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(nearly, found, expected))
    if isinstance(expected, float):
        return abs(found - expected) < 1e-5
    return bool(found == expected)


def lines(run: Run, **options: Any) -> list[dict[str, Any]]:
    """What the run predicts, without the texts."""
    found = run.predict(TEXTS, pairs_of(run), **options)
    return [{key: value for key, value in line.items() if not key.startswith("text")} for line in found]


def asked(run: Run) -> dict[str, Any]:
    return {"pairs": list(zip(TEXTS, SECONDS, strict=True))} if run.manifest.pairs else {"texts": TEXTS}


def test_own_contract_says_what_predict_says(url: str, runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        found = post(url, f"/v1/adapters/{name}/predict", asked(run))
        assert nearly(found["predictions"], lines(run)), name
        assert found["tokens"] == run.model.reader.read(TEXTS, pairs_of(run)).lengths.sum()
        options = {"base": True}
        assert nearly(
            post(url, f"/v1/adapters/{name}/predict", asked(run) | options)["predictions"], lines(run, **options)
        )
    options = {"sets": 0.8, "abstain": "coverage=0.7"}
    reviews = runs["reviews"]
    found = post(url, "/v1/adapters/reviews/predict", {"texts": TEXTS} | options)
    assert nearly(found["predictions"], lines(reviews, **options))
    assert found["notes"] == reviews.predictions(**options).notes  # type: ignore[arg-type]
    several = post(url, "/v1/predict", {"texts": TEXTS[:2], "adapters": ["topics", "reviews"], "explain": True})
    for name, answer in zip(["topics", "reviews"], several["adapters"], strict=True):
        because = [{"explanation": one.to_json()} for one in explain(runs[name].adapted, TEXTS[:2])]
        expected = [line | why for line, why in zip(lines(runs[name]), because, strict=False)]
        assert nearly(answer["predictions"], json.loads(json.dumps(expected))), name


def test_text_embeddings_inference(url: str, runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        seconds = pairs_of(run)
        items = (
            [[text] for text in TEXTS] if seconds is None else [list(pair) for pair in zip(TEXTS, seconds, strict=True)]
        )
        for raw, expected in ((False, scores(run)), (True, logits(run))):
            body = {"inputs": items, "raw_scores": raw}
            found = post(url, f"/predict?adapter={name}", body)
            assert all(row == sorted(row, key=lambda one: -one["score"]) for row in found)
            values = [{one["label"]: one["score"] for one in row} for row in found]
            assert nearly([[row[label] for label in run.manifest.labels] for row in values], expected.tolist()), name
        one = items[0] if seconds else items[0][0]
        assert nearly(
            post(url, f"/predict?adapter={name}", {"inputs": one}),
            post(url, f"/predict?adapter={name}", {"inputs": items})[0],
        )
    left = post(url, "/predict", {"inputs": "dull " * 200 + "a joy", "truncation_direction": "left"})
    right = post(url, "/predict", {"inputs": "dull " * 200 + "a joy", "truncate": True})
    assert left[0]["score"] != right[0]["score"]
    status, refused = call(url, "POST", "/predict", {"inputs": "dull " * 200, "truncate": False})
    assert (status, refused["error_type"]) == (422, "Validation")
    info = call(url, "GET", "/info?adapter=topics")[1]
    assert info["model_type"]["classifier"]["id2label"] == {"0": "war", "1": "drama", "2": "comedy"}


def test_client_of_hugging_face(url: str, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: False)  # the server is on this machine
    client = hub.InferenceClient(f"{url}/predict", api_key=KEY)
    found = client.text_classification(TEXTS[0])
    expected = dict(zip(runs["reviews"].manifest.labels, scores(runs["reviews"])[0].tolist(), strict=True))
    assert nearly({one.label: one.score for one in found}, expected)
    (top,) = client.text_classification(
        TEXTS[0], model=f"{url}/predict?adapter=topics", top_k=1, function_to_apply="none"
    )
    assert abs(top.score - logits(runs["topics"])[0].max()) < 1e-5
    with pytest.raises(hub.errors.HfHubHTTPError, match="softmax"):
        client.text_classification(TEXTS[0], function_to_apply="sigmoid")
    hub.close_session()


def test_vllm(url: str, runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        if run.manifest.pairs:
            continue
        for path, raw, expected in (("/classify", False, scores(run)), ("/v1/classify", True, logits(run))):
            found = post(url, path, {"model": name, "input": TEXTS} | ({"use_activation": False} if raw else {}))
            assert nearly([row["probs"] for row in found["data"]], expected.tolist())
            assert [row["label"] for row in found["data"]] == [run.manifest.labels[k] for k in expected.argmax(1)]
    assert post(url, "/classify", {"input": TEXTS[0]})["model"] == "reviews"
    assert [one["id"] for one in call(url, "GET", "/v1/models")[1]["data"]] == list(runs)


@pytest.mark.parametrize("binary", [True, False])
def test_client_of_triton(url: str, runs: dict[str, Run], binary: bool) -> None:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    for name, run in runs.items():
        facts = client.get_model_metadata(name, headers=bearer())
        columns = [TEXTS, SECONDS] if run.manifest.pairs else [TEXTS]
        inputs = []
        for facts_of_input, column in zip(facts["inputs"], columns, strict=True):
            inputs.append(triton.InferInput(facts_of_input["name"], [len(column), 1], "BYTES"))
            inputs[-1].set_data_from_numpy(np.array(column, object)[:, None], binary_data=binary)
        wanted = [triton.InferRequestedOutput(one["name"], binary_data=binary) for one in facts["outputs"]]
        result = client.infer(name, inputs, outputs=None if binary else wanted, request_id="7", headers=bearer())
        assert result.get_response()["id"] == "7"
        for one in facts["outputs"]:
            shape = [len(TEXTS) if size == -1 else size for size in one["shape"]]
            assert list(result.as_numpy(one["name"]).shape) == shape
        number = "value" if run.manifest.task == "regression" else "probabilities"
        assert np.allclose(result.as_numpy(number).reshape(len(TEXTS), -1), scores(run), atol=1e-5)
        if number == "probabilities":
            decoded = [label.decode() if binary else str(label) for label in result.as_numpy("labels")]
            assert decoded == run.manifest.labels
    assert client.is_model_ready("stars", headers=bearer())
    assert not client.is_model_ready("nobody", headers=bearer())
    with contextlib.closing(client), pytest.raises(triton.InferenceServerException, match="no adapter is called"):
        client.infer("nobody", inputs, headers=bearer())


def shape(value: Any) -> Any:
    """Returns the keys and types of a value of JSON."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]
    return "number" if type(value) in (int, float) else type(value).__name__


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_lines_of_the_documents_give_answers_like_those_in_them(url: str) -> None:
    commands = re.findall(r"^curl http://127\.0\.0\.1:8080.*$", DOCUMENTS, flags=re.MULTILINE)
    answers = dict(re.findall(r"\n(curl .*)\n```\n\n```json\n(.*)\n```", DOCUMENTS))
    assert len(answers) > 5
    for command in commands:
        words = shlex.split(command.replace("http://127.0.0.1:8080", url))
        done = subprocess.run([*words, "-sf", "-H", f"Authorization: Bearer {KEY}"], capture_output=True, check=True)
        expected = answers.get(command, done.stdout)
        assert shape(json.loads(done.stdout)) == shape(json.loads(expected)), command


def test_refused_requests_leave_no_text_in_answers_or_in_the_log(url: str) -> None:
    bodies = [
        {"inputs": {SECRET: SECRET}},
        {"inputs": [SECRET, SECRET, SECRET], "texts": SECRET, "input": [SECRET, 3], SECRET: SECRET},
        SECRET.encode(),
        f'{{"inputs": "{SECRET}'.encode(),
        f'{{"inputs": "{SECRET} \\ud800"}}'.encode(),
    ]
    for path in ("/predict", "/classify", "/v2/models/reviews/infer", "/v1/predict", "/v1/adapters/reviews/predict"):
        for body in bodies:
            status, found = call(url, "POST", path, body)
            assert status in (400, 422)
            assert SECRET not in json.dumps(found)
    assert call(url, "POST", "/predict", {"inputs": SECRET}, Authorization="Bearer wrong")[0] == 401
    assert call(url, "POST", "/v1/predict", b" " * 30_000_000)[0] == 413
    assert post(url, "/predict", {"inputs": "still there"})


def test_head_has_no_body_that_the_next_answer_would_begin_with(url: str) -> None:
    with contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
        for method in ("HEAD", "GET", "HEAD", "GET"):
            connection.request(method, "/health")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"" if method == "HEAD" else b'{"status":"ok"}')
