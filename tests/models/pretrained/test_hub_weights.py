"""Weights from the Hugging Face Hub, served from this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from facedan_cli.errors import FacedanError
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.hub import download

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def weights() -> bytes:
    torch.manual_seed(0)
    network = build("mobilefacenet", 1)
    own = {key: x.contiguous() for key, x in network.body.state_dict().items()}
    return save(own)


@pytest.fixture
def hub(weights: bytes, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which a Hub with three repositories is reached."""
    repositories = {
        "someone/face": {"model.safetensors": weights, "README.md": b"faces"},
        "someone/two": {"a.pth": weights, "b.pth": weights},
        "someone/none": {"README.md": b"nothing"},
    }

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            for name, files in repositories.items():
                if path.startswith(f"api/models/{name}"):
                    siblings = [{"rfilename": file} for file in files]
                    entries = [{"type": "file", "path": file, "size": len(x), "oid": "0"} for file, x in files.items()]
                    facts = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
                    return self.answer(200, json.dumps(entries if "/tree/" in path else facts).encode())
                file = path.partition(f"{name}/resolve/")[2].partition("/")[2]
                if path.startswith(f"{name}/resolve/") and file in files:
                    return self.answer(200, files[file])
                if path.startswith(f"{name}/"):
                    return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET  # noqa: N815

        def answer(self, code: int, body: bytes, more: dict[str, str] | None = None) -> None:
            self.send_response(code)
            etag = f'"{hashlib.sha256(body).hexdigest()}"'
            for key, value in {"ETag": etag, "X-Repo-Commit": COMMIT, **(more or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    without = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    yield without | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    server.shutdown()


def fetched(names: list[str], environment: dict[str, str]) -> list[str]:
    """What each name gives: the digest of its file, or what is said of it."""
    code = """
import hashlib, sys
from facedan_cli.errors import FacedanError
from facedan_cli.models.pretrained.hub import download
for name in sys.argv[1:]:
    try:
        print(hashlib.sha256(download(name).read_bytes()).hexdigest())
    except FacedanError as error:
        print(error.what)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return ran.stdout.splitlines()


def test_files_come_from_the_hub_and_then_from_its_cache(hub: dict[str, str], weights: bytes) -> None:
    sha = hashlib.sha256(weights).hexdigest()
    only, named, several, one, none, file, repository = fetched(
        [
            *("hf:someone/face", "hf:someone/face:model.safetensors", "hf:someone/two", "hf:someone/two:b.pth"),
            *("hf:someone/none", "hf:someone/face:other.pth", "hf:someone/nobody:x.pth"),
        ],
        hub,
    )
    assert (only, named, one) == (sha, sha, sha)
    assert "a.pth, b.pth" in several
    assert "no file of weights" in none
    assert "no file 'other.pth'" in file
    assert "no repository" in repository
    offline = {**hub, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    only, other = fetched(["hf:someone/face", "hf:someone/unseen:x.pth"], offline)
    assert only == sha
    assert "cache" in other


@pytest.mark.parametrize("name", ["hf:", "hf:face", "hf:a/b/c", "hf:a/b:/etc/passwd", "hf:a/b:../x", "hf:a b/c"])
def test_names_of_no_repository_are_refused(name: str) -> None:
    with pytest.raises(FacedanError, match="names no file"):
        download(name)
