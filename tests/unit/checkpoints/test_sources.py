"""From words to files: what is asked for, which files come, and what is said when they do not."""

import hashlib
import http.server
import json
import threading
import urllib.error
from email.message import Message
from io import BytesIO
from pathlib import Path

import pytest

from mindseye.checkpoints import hub, sources
from mindseye.checkpoints.hub import Hub, wanted
from mindseye.checkpoints.sources import Local, Url, delete, fetch, parse
from mindseye.errors import MindseyeError, OutputError, UsageError, WeightsError, WeightsMissing
from mindseye.request import drain

COMMIT = "c0ffee" + "0" * 34


def test_what_a_word_means():
    assert parse("hub:org/repo") == Hub("org/repo")
    assert parse(" hub:org/repo.v1@fp16/unet ") == Hub("org/repo.v1", "fp16", "unet")
    assert parse("hub:org/repo/a/b.safetensors") == Hub("org/repo", "", "a/b.safetensors")
    assert parse("https://huggingface.co/org/repo") == Hub("org/repo")
    page = "https://huggingface.co/org/repo/blob/main/some%20file.safetensors?download=true"
    assert parse(page) == Hub("org/repo", "main", "some file.safetensors")
    assert parse("https://example.org/x.safetensors") == Url("https://example.org/x.safetensors")
    assert parse("models/x.ckpt") == Local(Path("models/x.ckpt"))
    assert parse("~/x") == Local(Path.home() / "x")
    assert str(parse("hub:org/repo@v1/unet")) == "hub:org/repo@v1/unet"


@pytest.mark.parametrize(
    "text", ["hub:repo", "hub:", "hub:org/repo/../../etc", "ftp://a/b", "http://a/b.ckpt", "", "a\0b", "hub:a/b@"]
)
def test_what_means_nothing_is_refused(text):
    with pytest.raises(UsageError):
        parse(text)


REPOSITORY = [
    "README.md", "model_index.json", "v1-5-pruned.ckpt", "evil.py", "unet/config.json", "unet/code.py",
    "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.bin",
    "vae/config.json", "vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.fp16.bin",
    "text_encoder/config.json", "text_encoder/model.fp16-00001-of-00002.safetensors",
    "text_encoder/model.fp16-00002-of-00002.safetensors", "text_encoder/model.safetensors.index.fp16.json",
    "text_encoder/model-00001-of-00002.safetensors", "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "scheduler/scheduler_config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json",
]  # fmt: skip


def test_of_a_diffusers_repository_one_set_of_weights_a_part_comes():
    half = set(wanted(REPOSITORY))
    assert half == {
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json", "vae/diffusion_pytorch_model.fp16.bin",
        "text_encoder/config.json", "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.fp16-00002-of-00002.safetensors", "text_encoder/model.safetensors.index.fp16.json",
        "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json",
    }  # fmt: skip
    full = set(wanted(REPOSITORY, precision="full")) - half
    assert full == {
        "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin",
        "text_encoder/model-00001-of-00002.safetensors", "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
    }  # fmt: skip


def test_a_folder_or_a_file_of_it_can_be_asked_for():
    assert wanted(REPOSITORY, "v1-5-pruned.ckpt") == ("v1-5-pruned.ckpt",)
    assert set(wanted(REPOSITORY, "vae")) == {"vae/config.json", "vae/diffusion_pytorch_model.fp16.bin"}
    shards = wanted(REPOSITORY, "text_encoder/model.safetensors.index.json")
    assert shards[0].endswith("index.json") and len(shards) == 5
    with pytest.raises(UsageError) as told:
        wanted(REPOSITORY, "v1-5-prune.ckpt")
    assert "v1-5-pruned.ckpt" in told.value.hint


def test_of_other_repositories_the_one_file_comes_or_a_choice_is_asked_for():
    assert wanted(["a.ckpt", "a.safetensors", "README.md"]) == ("a.safetensors",)
    assert wanted(["config.json", "diffusion_pytorch_model.safetensors", "tae_encoder.pth"]) == (
        "config.json",
        "diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(UsageError, match="2 files of weights: a.safetensors, b.safetensors") as told:
        wanted(["a.safetensors", "b.safetensors"])
    assert "hub:org/repo/a.safetensors" in told.value.hint
    with pytest.raises(UsageError, match="no weights"):
        wanted(["README.md", "model.onnx"])


def test_a_path_that_is_not_there_gets_the_nearest(tmp_path):
    (tmp_path / "model.safetensors").touch()
    fetched = drain(fetch(str(tmp_path / "model.safetensors"), downloads=tmp_path))
    assert (fetched.path, fetched.source, fetched.new) == (tmp_path / "model.safetensors", "", ())
    with pytest.raises(WeightsMissing) as told:
        drain(fetch(str(tmp_path / "model.safetensor"), downloads=tmp_path))
    assert "model.safetensors" in told.value.hint
    with pytest.raises(WeightsMissing) as told:
        drain(fetch("some-org/some-repo", downloads=tmp_path))
    assert "hub:some-org/some-repo" in told.value.hint


# -- the hub: its own library against a server of ours ----------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """The three answers of the hub that a download needs."""

    files: dict[str, bytes] = {}
    stated: dict[str, str] = {}
    asked: list[str] = []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.command == "GET":
            self.asked.append(self.path)
        known, _, rest = self.path.partition("/org/repo")
        prefix = f"/resolve/{COMMIT}/"
        if known == "/api/models" and "/revision/nowhere" not in rest:
            siblings = []
            for name, body in self.files.items():
                lfs = {"sha256": self.sha(name), "size": len(body), "pointerSize": 1}
                siblings.append({"rfilename": name, "size": len(body), "lfs": lfs})
            about = {"id": "org/repo", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "openrail++"}}
            self.answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        elif "/org/gated" in self.path:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif rest.startswith(prefix) and rest.removeprefix(prefix) in self.files:
            name = rest.removeprefix(prefix)
            self.answer(200, self.files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{self.sha(name)}"'})
        else:
            code = "RevisionNotFound" if "/revision/" in self.path and "/org/repo/" in self.path else "RepoNotFound"
            self.answer(404, b"", {"X-Error-Code": code})

    def sha(self, name):
        return self.stated.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def answer(self, status, body, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b'{"a": 1}',
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "unet/diffusion_pytorch_model.safetensors": b"whole",
    "code.py": b"raise SystemExit",
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub that has one repository, and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(Handler, "files", dict(FILES))
    monkeypatch.setattr(Handler, "stated", {})
    monkeypatch.setattr(Handler, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
        server.shutdown()
        thread.join()


def get(text, tmp_path, **more):
    return drain(fetch(text, downloads=tmp_path / "downloads", **more))


def test_only_what_is_wanted_comes_and_only_once(server, tmp_path):
    fetched = get("hub:org/repo", tmp_path)
    there = {each.relative_to(fetched.path).as_posix() for each in fetched.path.rglob("*") if each.is_file()}
    assert there == {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"}
    assert fetched.source == f"hub:org/repo@{COMMIT}" and fetched.licence == "openrail++" and len(fetched.new) == 3
    before = len(Handler.asked)
    again = get("hub:org/repo", tmp_path)
    assert again.path == fetched.path and again.new == ()
    assert [path for path in Handler.asked[before:] if "resolve" in path] == []


def test_without_a_network_what_came_before_serves(server, tmp_path, monkeypatch):
    from huggingface_hub import constants

    fetched = get("hub:org/repo", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        assert get("hub:org/repo", tmp_path).path == fetched.path
        with pytest.raises(WeightsMissing, match="cannot be reached, and hub:org/other was not downloaded"):
            get("hub:org/other", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get("hub:org/repo/unet", tmp_path).path == fetched.path / "unet"
    with pytest.raises(WeightsMissing, match="HF_HUB_OFFLINE is set"):
        get("hub:org/other", tmp_path)


def test_what_the_hub_refuses_is_said(server, tmp_path):
    for text, said in (
        ("hub:org/other", "there is no hub:org/other"),
        ("hub:org/repo@nowhere", "no revision 'nowhere'"),
        ("hub:org/gated", "accept its terms"),
        ("hub:org/repo/none.ckpt", "hub:org/repo: there is no none.ckpt"),
    ):
        with pytest.raises(UsageError, match=said):
            get(text, tmp_path)


def test_a_download_that_is_not_what_the_hub_states_does_not_stay(server, tmp_path):
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    Handler.stated[name] = "0" * 64
    with pytest.raises(WeightsError, match="arrived damaged"):
        get("hub:org/repo", tmp_path)
    assert not list((tmp_path / "cache").rglob("*fp16*"))


def test_deleting_frees_and_leaves_what_others_use(server, tmp_path):
    fetched = get("hub:org/repo", tmp_path)
    other = fetched.path.parent / "other" / "config.json"
    other.parent.mkdir()
    other.symlink_to((fetched.path / "unet" / "config.json").resolve())
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"mine")
    assert delete([*fetched.new, mine]) == len(b"{}") + len(b"half")
    assert other.read_bytes() == FILES["unet/config.json"] and mine.exists() and not fetched.path.exists()
    other.unlink()


def test_there_must_be_room(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(OutputError, match="has 0.0 GB left"):
        get("hub:org/repo", tmp_path)


# -- one file from the web --------------------------------------------------------------------------------------------


def web(monkeypatch, body, final="https://example.org/files/cat.safetensors", **headers):
    message = Message()
    for key, value in {"Content_Length": str(len(body)), **headers}.items():
        message[key.replace("_", "-")] = value

    class Response(BytesIO):
        def __init__(self):
            super().__init__(body)
            self.headers = message

        def geturl(self):
            return final

    monkeypatch.setattr(sources, "_open", lambda _: Response())


def test_a_file_from_the_web_gets_its_own_name_and_a_free_one(monkeypatch, tmp_path):
    web(monkeypatch, b"weights")
    first, second = (get("https://example.org/cat.safetensors", tmp_path) for _ in range(2))
    assert first.path == tmp_path / "downloads" / "cat.safetensors" and first.path.read_bytes() == b"weights"
    assert second.path.name == "cat-2.safetensors" and first.new == (first.path,)
    web(monkeypatch, b"w", Content_Disposition='attachment; filename="../../dog%20one.safetensors"')
    named = get("https://example.org/api/download/17", tmp_path)
    assert named.path == tmp_path / "downloads" / "dog one.safetensors"
    assert delete(named.new) == 1 and not named.path.exists() and first.path.exists()


@pytest.mark.parametrize(
    ("headers", "final", "said"),
    [
        ({"Content_Length": "99"}, "https://e.org/x.ckpt", "broke off after 7 of 99"),
        ({"Content_Type": "text/html; charset=utf-8"}, "https://e.org/x.ckpt", "web page"),
        ({}, "https://e.org/x.exe", "no file of weights"),
        ({}, "http://e.org/x.ckpt", "not https"),
    ],
)
def test_what_comes_instead_of_weights_leaves_nothing(monkeypatch, tmp_path, headers, final, said):
    web(monkeypatch, b"weights", final, **headers)
    with pytest.raises(MindseyeError, match=said):
        get("https://e.org/x.ckpt", tmp_path)
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_refusals_of_the_web_are_said(monkeypatch, tmp_path):
    def refuse(error):
        def opened(_):
            raise error

        monkeypatch.setattr(sources, "_open", opened)

    refuse(urllib.error.HTTPError("https://e.org/x", 403, "Forbidden", Message(), BytesIO()))
    with pytest.raises(WeightsMissing, match="answered 403: it is forbidden") as told:
        get("https://e.org/x.ckpt", tmp_path)
    assert "browser" in told.value.hint
    refuse(urllib.error.URLError("no route"))
    with pytest.raises(WeightsMissing, match="cannot be reached"):
        get("https://e.org/x.ckpt", tmp_path)
    refuse(TimeoutError("timed out"))
    with pytest.raises(WeightsMissing, match="broke off"):
        get("https://e.org/x.ckpt", tmp_path)


def test_stopping_a_download_leaves_nothing(monkeypatch, tmp_path):
    web(monkeypatch, b"x" * (3 << 20))
    steps = fetch("https://e.org/x.ckpt", downloads=tmp_path)
    next(steps), next(steps)
    assert list(tmp_path.iterdir())
    steps.close()
    assert not list(tmp_path.iterdir())
