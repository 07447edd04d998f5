"""The container cannot be built here: its file, and all commands in it and on its page, are checked."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from command_line import good, parsed

from bertlora.model.base import embedded_folder

ROOT = Path(__file__).parents[1]
FILE = ROOT / "Containerfile"
PAGES = [ROOT / "docs" / name for name in ("container.md", "operations.md")]
# Of the Dockerfile reference; MAINTAINER is deprecated, the others are not used by podman's own format.
INSTRUCTIONS = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "LABEL", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
INSTRUCTIONS |= {"EXPOSE"}
PIP_VALUES = ("--constraint", "--index-url")
RUN_VALUES = ("--network", "--tmpfs", "--user", "--userns", "--volume", "--env", "--cpus", "--name", "--publish")
RUN_VALUES += ("--stop-timeout", "--health-cmd")


def instructions() -> list[tuple[str, str]]:
    """Returns the instructions of the file, in order, with what follows each; continued lines are joined."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in joined]


def of(kind: str) -> list[str]:
    """Returns what follows each instruction of a kind."""
    return [rest for name, rest in instructions() if name == kind]


def check_command(words: list[str]) -> None:
    """Parses a verb and its options by the real command line."""
    verb, *rest = words
    if verb != "--help":
        parsed(verb, *rest)


def test_instructions_are_known_and_complete() -> None:
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    assert instructions()[0][0] in ("FROM", "ARG")
    # One base, pinned by a full version.
    bases = {rest.split()[0] for rest in of("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+", bases.pop())
    declared = {rest.partition("=")[0] for rest in of("ARG")}
    used = {name for rest in of("RUN") for name in re.findall(r"\$\{(\w+)\}", rest)}
    assert used == declared


def test_copied_files_are_there_and_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert ignore == (ROOT / ".containerignore").read_text(encoding="utf-8")
    let_through = {line[1:] for line in ignore.splitlines() if line.startswith("!")}
    copied = {path for rest in of("COPY") if "--from=" not in rest for path in shlex.split(rest)[:-1]}
    assert copied == let_through
    assert [path for path in copied if not (ROOT / path).exists()] == []
    stages = {rest.split(" AS ")[1] for rest in of("FROM") if " AS " in rest}
    assert {rest.split()[0].removeprefix("--from=") for rest in of("COPY") if "--from=" in rest} <= stages


def test_it_runs_without_rights() -> None:
    after_last_stage = instructions()[max(i for i, (name, _) in enumerate(instructions()) if name == "FROM") :]
    users = [rest for name, rest in after_last_stage if name == "USER"]
    assert len(users) == 1
    assert int(users[0].partition(":")[0]) > 0


def test_what_is_installed_is_pinned() -> None:
    pins = {
        line.partition("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    chosen = next(rest.partition("=")[2] for rest in of("ARG") if rest.startswith("EXTRAS="))
    assert set(chosen.split(",")) <= extras.keys()
    installs = [shlex.split(rest) for rest in of("RUN") if "pip install" in rest]
    assert len(installs) == 3
    for words in installs:
        assert words[words.index("--constraint") + 1] == "constraints.txt"
        values = {words[i + 1] for i, word in enumerate(words) if word in PIP_VALUES}
        names = [w for w in words[2:] if not w.startswith("-") and w not in values]
        assert all(name in pins or name == ".[${EXTRAS}]" for name in names), names


def test_its_commands_are_commands() -> None:
    runs = [shlex.split(rest) for rest in of("RUN")]
    checks = [words[words.index("bertlora") + 1 :] for words in runs if "bertlora" in words]
    assert len(checks) == 1
    for words in checks:
        check_command(words)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert [json.loads(rest) for rest in of("ENTRYPOINT")] == [[name] for name in scripts]
    check_command(json.loads(of("CMD")[0]))


def test_the_command_of_its_build_finds_the_base_model(capsys: pytest.CaptureFixture[str]) -> None:
    if embedded_folder() is None:
        pytest.skip("the package of the base model is not installed")
    (words,) = (shlex.split(rest) for rest in of("RUN") if "bertlora plan" in rest)
    setting, name, *verb = words
    assert (setting, name) == ("HF_HUB_OFFLINE=1", "bertlora")  # tests set the same
    assert good(capsys, *verb).json["lora_parameters"] > 0


def test_the_pages_commands_are_commands() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES).replace("\\\n", " ")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]
    runs = [re.split(r"(?:docker|podman) run ", line)[1] for line in lines if re.search(r"(docker|podman) run ", line)]
    assert len(runs) > 5
    for run in runs:
        words = shlex.split(run.split(" > ")[0])
        while words[0].startswith("--"):
            words = words[2:] if words[0] in RUN_VALUES else words[1:]
        image, *rest = words
        assert image == "bertlora"
        check_command(rest)
    builds = [line for line in lines if " build " in line]
    assert all(argument in of("ARG")[0] + of("ARG")[1] for argument in re.findall(r"--build-arg (\w+)=", str(builds)))
