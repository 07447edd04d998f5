"""No network: loading, predicting and saving ask no hub, also if nobody says that the hub is offline."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from helpers import adapted_of, save_tiny_run

SCRIPT = """
import os, socket, sys

def refuse(*address, **_):
    print(f"network asked for: {address}", file=sys.stderr, flush=True)
    os._exit(7)  # an exception would be swallowed on the way

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from bertlora import LoraClassifier, Run

run = Run.load(sys.argv[1])
assert run.predict(["a joy"])[0]["label"] in run.manifest.labels
run.export(sys.argv[2] + "/merged")
run.adapted.save(__import__("pathlib").Path(sys.argv[2]) / "adapter")
classifier = LoraClassifier(model="minilm", epochs=1, max_steps=1, max_length=16).fit(["a joy", "a mess"], [1, 0])
classifier.save(sys.argv[2] + "/b")
LoraClassifier.load(sys.argv[2] + "/b").predict(["a joy"])
"""


def test_load_predict_export_fit_and_save_open_no_socket(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
