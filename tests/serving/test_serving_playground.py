"""The playground, end to end: a real server in a process of its own, and headless Chromium."""

import csv
import io
import json
import random
import runpy
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import start
from helpers import adapted_of, save_tiny_run

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.learned import Learned
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.table_file import FORMULA_STARTS
from bertlora.run.loaded import Run

pytest.importorskip("fastapi")
sync = pytest.importorskip("playwright.sync_api")
SCREENSHOT = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "make_screenshot.py"))
if not SCREENSHOT["CHROMIUM"].exists():
    pytest.skip(f"{SCREENSHOT['CHROMIUM']} is not installed", allow_module_level=True)

HOSTILE = "<img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script> a dull film & a mess"
PAIR = "<b>a second text</b>"
LABELS = ["<i>bad</i>", "=good", "mixed"]
# Name → labels, task, whether it reads pairs.
ADAPTERS: dict[str, tuple[list[str], str, bool]] = {
    "mood": (LABELS, "classification", False),
    "topics": (["war", "drama", "comedy"], "multilabel", False),
    "stars": (["stars"], "regression", False),
    "entailed": (LABELS, "classification", True),
}


def learned(task: str, rng: np.random.Generator) -> Learned:
    """What 200 validation rows might have taught; most of its answers were right."""
    if task == "regression":
        return Spread.of(0.0, 1.0, rng.normal(size=(200, 1)), rng.normal(size=200))
    y_true = np.eye(len(LABELS))[rng.integers(len(LABELS), size=200)]
    logits = rng.gumbel(size=y_true.shape) + 3 * y_true
    return Thresholds.fit(logits, y_true > 0) if task == "multilabel" else Calibration.fit(logits, y_true.argmax(1))


@pytest.fixture(scope="module")
def runs(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of every task that were not trained: their weights are random."""
    folder, rng = tmp_path_factory.mktemp("playground"), np.random.default_rng(0)
    for name, (labels, task, pairs) in ADAPTERS.items():
        save_tiny_run(folder / name, adapted_of(tiny("bert"), labels, pairs=pairs, task=task), learned(task, rng))
    return {name: Run.load(folder / name) for name in ADAPTERS}


@pytest.fixture(scope="module")
def origin(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's URL. In the end its log must have the requests, and no text."""
    adapters = [f"{name}={run.path}" for name, run in runs.items()]
    words = ("serve", *adapters, "--port", 0, "--precision", "fp32", "--json")
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    with path.open("wb") as log, start(*words, stderr=log.fileno()) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGTERM)
    said = path.read_text()
    assert "/v1/adapters/{name}/predict" in said
    assert not any(word in said for word in ("taken", "lifeless", "brilliant", "unbroken", "second text"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(SCREENSHOT["CHROMIUM"]), args=SCREENSHOT["ARGUMENTS"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def window(browser: Any) -> Any:
    """A page with the lists of what it asked for, `asked`, and what its console says, `said`."""
    shown = browser.new_page(color_scheme="light")
    shown.set_default_timeout(60_000)  # other tests may take the machine's time
    shown.asked, shown.said = [], []
    shown.on("request", lambda request: shown.asked.append(request.url))
    shown.on("console", lambda message: shown.said.append(message.text))
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    return shown


@pytest.fixture
def page(window: Any, origin: str) -> Iterator[Any]:
    """The page, opened again. In the end it must have asked only its own server, and the console must be empty."""
    window.set_viewport_size({"width": 1200, "height": 900})
    window.goto(origin)
    window.get_by_text("several of war, drama, comedy").wait_for()
    yield window
    window.unroute_all(behavior="ignoreErrors")
    assert {url for url in window.asked if not url.startswith((f"{origin}/", f"blob:{origin}/"))} == set()
    assert [line for line in window.said if "Failed to load resource" not in line] == []
    assert window.title() == "bertlora: playground"  # no script of a text has run


def finished(page: Any) -> None:
    """Waits until nothing is asked any more."""
    page.locator("#stop").wait_for(state="hidden")


def percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.0005 else ">99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def test_one_text_asked_of_every_kind_of_adapter(page: Any, runs: dict[str, Run]) -> None:
    page.locator("#text").fill(HOSTILE)
    for i in range(1, len(ADAPTERS)):
        page.locator(f"#adapter-{i}").check()
    page.locator("#pair").fill(PAIR)
    page.locator("#base").check()
    page.locator("#text").press("Control+Enter")
    page.locator(".words").nth(len(ADAPTERS) - 1).wait_for()
    finished(page)
    spoken = page.locator("#said").text_content()
    for i, (name, run) in enumerate(runs.items()):
        card = page.locator(".card").nth(i)
        _, task, paired = ADAPTERS[name]
        pairs = [PAIR] if paired else None
        (line,), (base,) = run.predict([HOSTILE], pairs), run.predict([HOSTILE], pairs, base=True)
        assert card.locator("h3").text_content() == name
        if task == "regression":
            low, high = line["interval"]
            for value in (line["value"], low, high, base["value"]):
                assert f"{value:.4g}" in card.text_content()
            continue
        chosen = line["labels"] if task == "multilabel" else [line["label"]]
        shares = sorted(line["probabilities"].items(), key=lambda item: -item[1])
        shown = [" ".join(text.split()) for text in card.locator(".shares li").all_text_contents()]
        bases = base["probabilities"]
        assert shown == [f"{label}base {percent(bases[label])}{percent(share)}" for label, share in shares]
        assert card.locator(".shares .given .label").all_text_contents() == chosen
        assert f"{name}: {', '.join(chosen) or 'none of the labels'}" in spoken
        # The words are all there, in order, and nothing of them became an element.
        assert card.locator(".marked").first.text_content() == HOSTILE
        assert card.locator(".marked").count() == 1 + paired
        assert card.locator("img, i, b").count() == 0
        widths = card.locator(".bar:not(.of-base)").evaluate_all(
            "bars => bars.map(b => parseFloat(getComputedStyle(b, '::before').width) / b.clientWidth)"
        )
        assert widths == pytest.approx([share for _, share in shares], abs=0.01)
    # An earlier text comes back with a key.
    page.locator("#text").fill("another")
    page.locator(".again").press("Enter")
    assert page.locator("#text").input_value() == HOSTILE


def test_the_words_are_those_of_explain(page: Any, runs: dict[str, Run]) -> None:
    from bertlora.model.explain import explain

    text = "a dull and lifeless mess but the cast is brilliant"
    page.locator("#text").fill(text)
    page.locator("#predict").click()
    page.locator(".words summary").click()
    (why,) = explain(runs["mood"].adapted, [text])
    largest = sorted(why.words, key=lambda word: -abs(word.attribution or 0))
    rows = page.locator(".words tbody tr")
    assert rows.locator("th").all_text_contents() == [word.text for word in largest]
    values = [float(cell.replace("−", "-")) for cell in rows.locator("td").all_text_contents()]
    assert values == pytest.approx([word.attribution for word in largest], rel=0.02, abs=1e-3)
    floor = 0.2 * abs(largest[0].attribution or 0)
    for kind, sign in ((".for", 1), (".against", -1)):
        coloured = [w.text for w in why.words if sign * (w.attribution or 0) >= floor]
        assert page.locator(f".marked {kind}").all_text_contents() == coloured
        line = page.locator(f".note {kind}").evaluate("e => getComputedStyle(e).textDecorationStyle")
        assert line == {".for": "solid", ".against": "dotted"}[kind]


def test_a_file_in_and_a_file_out(page: Any, runs: dict[str, Run], tmp_path: Path) -> None:
    texts = [f'text {i}, "quoted"\nand {"dull" if i % 3 else "brilliant"} {i * i}' for i in range(70)]
    texts[3], texts[5] = "=HYPERLINK(1)", "   "
    file = tmp_path / "in.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", "review"], *([str(i), text] for i, text in enumerate(texts))])
    page.locator("#many-tab").focus()
    page.locator("#one-tab").press("ArrowRight")
    for i in (1, 2):
        page.locator(f"#adapter-{i}").check()
    page.locator("#abstain").select_option("accuracy=0.9")
    page.locator("#file").set_input_files(file)
    page.get_by_text("in.csv: 70 rows").wait_for()
    assert page.locator("#column option:checked").text_content() == "review"
    page.locator("#predict").click()
    page.get_by_text("All 70 texts are predicted.").wait_for(state="attached")
    with page.expect_download() as downloaded:
        page.locator("#download").click()
    header, *rows = csv.reader(io.StringIO(downloaded.value.path().read_bytes().decode("utf-8"), newline=""))
    ends = ["mood: predicted_label", "mood: confidence", "topics: predicted_labels"]
    assert header == ["id", "review", *ends, *(f"stars: {end}" for end in ("predicted_value", "low", "high"))]
    assert page.locator("tbody tr").count() == len(rows) == 70
    asked = [text if text.strip() else "x" for text in texts]
    moods = runs["mood"].predict(asked, abstain="accuracy=0.9")
    for i, (row, mood, topic, star) in enumerate(
        zip(rows, moods, runs["topics"].predict(asked), runs["stars"].predict(asked), strict=True)
    ):
        assert row[:2] == [str(i), f"'{texts[i]}" if texts[i].startswith("=") else texts[i]]
        if i == 5:
            assert row[2:] == [""] * 6
            continue
        label = mood["label"] or ""
        assert row[2] == (f"'{label}" if label.startswith("=") else label)
        assert float(row[3]) == pytest.approx(mood["confidence"], abs=1e-5)
        assert row[4] == "|".join(topic["labels"])
        assert [float(cell) for cell in row[5:]] == pytest.approx([star["value"], *star["interval"]], abs=1e-4)
    assert any(mood["abstained"] for mood in moods)
    counts = Counter(mood["label"] or "no label" for i, mood in enumerate(moods) if i != 5)
    said = page.locator("#counts li").first.text_content()
    assert all(f"{label} ({count})" in said for label, count in counts.items())


def test_tables_are_read_and_written_as_python_does(page: Any) -> None:
    """Random tables of awkward cells, by Python's csv and json on the other side."""
    rng = random.Random(0)
    pieces = ["a", "b c", '"', '""', ",", ";", "\n", "\r\n", "=1", "-2", "é", "\u202e", "'", " ", "", "\t"]

    def table() -> list[list[str]]:
        width = rng.randint(1, 4)
        rows = [["".join(rng.choices(pieces, k=rng.randint(0, 4))) for _ in range(width)] for _ in range(3)]
        # A row of nothing but an empty cell would be a blank line.
        return [[f"c{i}" for i in range(width)], *([row[0] or "x", *row[1:]] for row in rows)]

    tables = [table() for _ in range(150)]
    files = []
    for one in tables:
        stream = io.StringIO(newline="")
        csv.writer(stream, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])).writerows(one)
        lines = [json.dumps(dict(zip(one[0], row, strict=True))) for row in one[1:]]
        files.append([stream.getvalue(), "\n".join(lines) + "\n"])
    read, objects, written = page.evaluate(
        """async ([tables, files]) => {
          const { readFile, writeCsv } = await import("/playground/tables.js");
          const read = (name, text) => readFile(name, new TextEncoder().encode(text));
          return [files.map(([csv]) => read("a.csv", csv)), files.map(([, lines]) => read("a.JSONL", lines)),
                  tables.map(([header, ...rows]) => writeCsv(header, rows))];
        }""",
        [tables, files],
    )
    assert read == objects == [{"columns": one[0], "rows": one[1:]} for one in tables]
    for one, text in zip(tables, written, strict=True):
        safe = [[f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell for cell in row] for row in one]
        assert list(csv.reader(io.StringIO(text, newline=""))) == safe


def test_a_damaged_file_is_named_in_one_line(page: Any) -> None:
    page.locator("#many-tab").click()
    for name, content, said in (
        ("a.csv", b"text,x\na,b\n\nc\n", "line 4: 1 cells, and the header has 2"),
        ("a.csv", b'text\n"open', "line 2: a quoted cell does not end, or text follows its end"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "line 2: is not a JSON object"),
        ("a.txt", b"caf\xe9", "the file is not UTF-8; save it as UTF-8"),
    ):
        page.locator("#file").set_input_files({"name": name, "mimeType": "text/plain", "buffer": content})
        page.get_by_role("alert").get_by_text(f"{name}: {said}", exact=True).wait_for()
    # A whole one is dropped.
    dropped = page.evaluate_handle(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["a joy\\n\\na mess\\n"], "lines.txt"));
          return data;
        }"""
    )
    page.dispatch_event("#many", "drop", {"dataTransfer": dropped})
    page.get_by_text("lines.txt: 2 rows").wait_for()
    assert page.locator("#error").text_content() == ""


def test_errors_are_said_and_a_busy_server_is_asked_again(page: Any, origin: str) -> None:
    alert = page.locator("#error")
    page.locator("#predict").click()
    alert.get_by_text("There is no text.").wait_for()
    answers = [
        {"status": 401, "json": {"error": "no"}},
        {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": "the queue is full"}},
        {"status": 424, "json": {"error": "the model\nfailed", "reason": "backend"}},
    ]
    page.route("**/predict", lambda route: route.fulfill(**answers.pop(0)) if answers else route.continue_())
    page.locator("#explain").uncheck()
    page.locator("#text").fill("a joy")
    page.locator("#predict").click()
    alert.get_by_text("needs an API key").wait_for()
    page.locator("#key").fill("secret")
    page.locator("#key").press("Enter")
    page.locator("#key-form").wait_for(state="hidden")
    with page.expect_request("**/predict") as request:
        page.locator("#text").press("Control+Enter")
    assert request.value.headers["authorization"] == "Bearer secret"
    page.get_by_text("The server is busy. The page asks again in 1 s.").wait_for()
    page.locator(".card").get_by_text("the model failed", exact=True).wait_for()
    assert page.locator("#waiting").text_content() == ""
    page.locator("#predict").click()
    page.locator(".verdict").wait_for()
    page.route("**/predict", lambda route: route.abort())
    page.locator("#predict").click()
    page.locator(".card").get_by_text("The server does not answer.").wait_for()


def test_a_batch_of_pairs_can_be_stopped_and_keeps_what_is_done(page: Any, runs: dict[str, Run]) -> None:
    page.locator("#many-tab").click()
    page.locator("#adapter-0").uncheck()
    page.locator("#adapter-3").check()
    page.locator("#lines").fill("\n".join(f"line {i}\tsecond {i}" for i in range(100)))
    held: list[Any] = []
    page.route("**/predict", lambda one: held.append(one) if "line 40" in one.request.post_data else one.continue_())
    page.locator("#predict").click()
    page.get_by_text("32 of 100 texts").wait_for()
    page.locator("#stop").click()
    finished(page)
    assert page.locator("tbody tr").count() == 32
    (line,) = runs["entailed"].predict(["line 31"], ["second 31"])
    said = f"{line['label']}, {percent(line['confidence'])}"
    assert page.locator("tbody tr").last.locator("td").all_text_contents() == ["32", "line 31", said]
    assert page.locator("#said").text_content() == "Stopped."
    assert page.locator("#download").is_enabled()


def test_of_many_adapters_one_is_found_by_its_name(page: Any) -> None:
    names = [f"adapter-{i}" for i in range(64)]
    page.route("**/v1/adapters", lambda route: route.fulfill(json={"default": names[0], "adapters": names}))
    described: list[str] = []

    def describe(route: Any) -> None:
        described.append(route.request.url.rpartition("/")[2])
        route.fulfill(json={"name": described[-1], "task": "regression", "labels": ["stars"], "pairs": True})

    page.route("**/v1/adapters/*", describe)
    page.reload()
    page.get_by_text("1 of 64 picked").wait_for()
    page.locator("#filter").fill("Adapter-63")
    assert page.locator("#adapters li:visible").count() == 1
    page.locator("#adapters li:visible input").check()
    page.get_by_text("2 of 64 picked").wait_for()
    page.get_by_text("Read by adapter-0, adapter-63.").wait_for()
    assert described == ["adapter-0", "adapter-63"]


def test_axe_finds_nothing_and_a_phone_need_not_scroll(page: Any) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright").Axe()

    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    def violations(options: dict[str, Any]) -> list[Any]:
        found = axe.run(page, options=options)["violations"]
        return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]

    page.locator("#text").fill(HOSTILE + "unbroken" * 30)
    for i in range(1, len(ADAPTERS) - 1):
        page.locator(f"#adapter-{i}").check()
    page.locator("#base").check()
    page.locator("#text").press("Control+Enter")
    page.locator(".words summary").nth(2).click()
    for tab in ("one", "many"):
        page.locator(f"#{tab}-tab").click()
        if tab == "many":
            page.locator("#lines").fill("a joy\n" + "unbroken" * 30)
            page.locator("#predict").click()
            page.get_by_text("All 2 texts are predicted.").wait_for(state="attached")
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert ground() == "rgb(251, 250, 248)"
        assert violations({}) == []
        page.locator("#theme").press("Enter")
        assert ground() == "rgb(19, 23, 26)"
        assert violations({"runOnly": ["color-contrast"]}) == []
        page.locator("#theme").press("Enter")
    # A choice outlives the page; without one the system's theme counts.
    page.emulate_media(color_scheme="dark")
    assert ground() == "rgb(251, 250, 248)"
    page.evaluate("localStorage.clear()")
    page.reload()
    assert ground() == "rgb(19, 23, 26)"
    assert page.locator("#theme").text_content() == "Light theme"
    page.emulate_media(color_scheme="light")


def test_the_policy_lets_no_script_in_but_the_pages_own(browser: Any, origin: str) -> None:
    page = browser.new_page()
    parts = page.goto(origin).headers["content-security-policy"].split(";")
    policy = dict(part.strip().partition(" ")[::2] for part in parts)
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert page.request.get(f"{origin}/playground/__init__.py").status == 404
    refused = page.evaluate(
        """async () => {
          const tries = [
            () => { document.body.innerHTML = "<p>x</p>"; },
            () => { document.createElement("script").text = "document.title = 'taken'"; },
            () => { document.body.setAttribute("onclick", "document.title = 'taken'"); },
            () => fetch("http://127.0.0.1:9/"),
          ];
          const outcome = async (one) => { try { await one(); return "done"; } catch (error) { return error.name; } };
          return Promise.all(tries.map(outcome));
        }"""
    )
    assert refused == ["TypeError"] * 4
    page.close()
