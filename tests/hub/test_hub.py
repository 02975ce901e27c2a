"""Push and pull with a local fake of the Hub: real requests by huggingface_hub, no network."""

import hashlib
import json
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import yaml
from _helpers.hub_server import TOKEN, HubServer
from _helpers.patience import PATIENCE
from _helpers.small import make_dataset, make_image, make_tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import gantoolkit
from gantoolkit.errors import CheckpointError, GantoolkitError, HubError
from gantoolkit.evaluation.tables import read_scores
from gantoolkit.files.tensors import read_tensors
from gantoolkit.hub import RepositoryName, make_card, pull, push
from gantoolkit.hub.card import fence, format_code
from gantoolkit.hub.paths import shorten_paths
from gantoolkit.run import Run
from gantoolkit.runs import read_generator_header, write_generator

Command = Callable[..., tuple[int, str, str]]
# huggingface_hub 2.4 uploads in a way that httpx2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "ada/tiny"
A2B, B2A = "generators/A2B.safetensors", "generators/B2A.safetensors"


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an evaluation during training; each test gets its own copy."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = make_tiny().swap({"training.evaluate_every": 4, "metric": "l1"})
    data = make_dataset(folder / "images")
    for domain in "AB":  # the metric requires pairs
        for number in range(2):
            make_image(number).save(data / f"test{domain}" / f"{number:02d}.png")
    return gantoolkit.train(recipe, data, folder / "run", device="cpu", stop_at=4).path


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the values that huggingface_hub reads from the environment when it is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a closed port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    return f"http://127.0.0.1:{port}"


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


class TestPushAndPull:
    def test_pull_restores_the_pushed_files(self, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
        code, output, _ = command("push", run.path, NAME, "--license", "cc-by-4.0", "--message", "first")
        assert code == 0
        repository = hub.repositories[NAME]
        assert f"{hub.url}/{NAME} at commit {repository.head}" in output
        assert repository.messages == ["initial commit", "first"]
        assert set(repository.files) == {".gitattributes", "README.md", "recipe.toml", A2B, B2A, "pictures/samples.png"}
        code, output, _ = command("pull", NAME, "--out", tmp_path / "got")
        assert code == 0
        assert repository.head in output
        assert f"use it with: gantoolkit translate {tmp_path / 'got'} --direction A2B" in output
        files = {
            path.relative_to(tmp_path / "got").as_posix() for path in (tmp_path / "got").rglob("*") if path.is_file()
        }
        assert files == set(repository.files) - {".gitattributes"}
        for name in (A2B, B2A):
            assert (tmp_path / "got" / name).read_bytes() == (run.path / name).read_bytes()
        assert leftovers(tmp_path) == []

    def test_pulled_model_translates(self, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
        push(run, NAME)
        pull(NAME, tmp_path / "got")
        make_image(3).save(tmp_path / "one.png")
        for index, model in enumerate((run.path, tmp_path / "got", tmp_path / "got" / A2B, NAME)):
            out = tmp_path / str(index)
            code, _, _ = command("translate", model, tmp_path / "one.png", "--direction", "A2B", "--out", out)
            assert code == 0
            assert (out / "one.png").read_bytes() == (tmp_path / "0" / "one.png").read_bytes()
        assert command("show", tmp_path / "got")[0] == 0
        code, output, _ = command(
            *("export", NAME, "--direction", "B2A", "--format", "safetensors", "--out", tmp_path / "w.safetensors")
        )
        assert code == 0
        assert "B2A" in output

    def test_pulled_model_can_be_pushed_again(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        pull(NAME, tmp_path / "got")
        push(Run.open(tmp_path / "got"), "ada/again")
        again = hub.repositories["ada/again"].files
        assert again[A2B] == (run.path / A2B).read_bytes()
        assert "The training data are not recorded." in again["README.md"].decode()

    def test_pulled_model_has_no_data(self, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
        push(run, NAME)
        pull(NAME, tmp_path / "got")
        code, _, stderr = command("train", "--resume", tmp_path / "got")
        assert code == 2
        assert "pass the path of the data set with --data" in stderr

    def test_second_push_removes_only_stale_generators_and_pictures(self, run: Run, hub: HubServer) -> None:
        push(run, NAME)
        repository = hub.repositories[NAME]
        repository.commit({**repository.files, "LICENSE": b"mine", "pictures/old.png": b"old"}, "by hand")
        (run.path / B2A).unlink()
        shutil.rmtree(run.folder.samples)
        result = push(run, NAME)
        assert set(repository.files) == {".gitattributes", "LICENSE", "README.md", "recipe.toml", A2B}
        assert result.commit == repository.head

    def test_revision(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        first = push(run, NAME).commit
        (run.path / B2A).unlink()
        push(run, NAME)
        assert B2A in pull(f"{NAME}@{first}", tmp_path / "first").files
        assert B2A not in pull(NAME, tmp_path / "now").files
        with pytest.raises(HubError, match="ada/tiny has no revision 'v9'"):
            pull(f"{NAME}@v9", tmp_path / "never")

    def test_private_repository(
        self, run: Run, hub: HubServer, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert command("push", run.path, NAME, "--private")[0] == 0
        assert hub.repositories[NAME].private
        assert command("pull", NAME, "--out", tmp_path / "with")[0] == 0
        monkeypatch.delenv("HF_TOKEN")
        code, _, stderr = command("pull", NAME, "--out", tmp_path / "without")
        assert code == 2
        assert "repository ada/tiny does not exist at http" in stderr
        assert "it is private and requires a token" in stderr

    def test_login_provides_the_token(
        self, run: Run, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
        push(run, NAME)
        assert NAME in hub.repositories

    def test_existing_folder_is_refused(self, run: Run, hub: HubServer, command: Command) -> None:
        push(run, NAME)
        code, _, stderr = command("pull", NAME, "--out", run.path)
        assert code == 2
        assert "already exists; choose another --out" in stderr


class TestPushedContent:
    def test_contains_no_local_path_and_no_training_state(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        for name, content in hub.repositories[NAME].files.items():
            for secret in (str(tmp_path), str(run.data), str(Path.home()), TOKEN):
                assert secret.encode() not in content, name
        assert not any("optimizer" in name or "G.phase" in name for name in read_tensors(run.path / A2B))

    def test_paths_in_a_recipe_are_shortened(self, run: Run, hub: HubServer, command: Command) -> None:
        recipe = run.recipe.swap({"name": "/home/ada/secret/mine.toml"})
        generator = run.translator("A2B", device="cpu").generator
        for direction in ("A2B", "B2A"):
            network = run.translator(direction, device="cpu").generator.network
            path = run.path / "generators" / f"{direction}.safetensors"
            write_generator(path, network, direction=direction, recipe=recipe, step=4)
        run.folder.recipe_file.write_text(recipe.to_toml())
        code, output, _ = command("push", run.path, NAME)
        assert code == 0
        assert "name: held a path of this machine; the last part of it was pushed" in output
        assert all(b"secret" not in content for content in hub.repositories[NAME].files.values())
        translator = gantoolkit.load(NAME, "A2B", device="cpu")
        assert translator.generator.recipe.name == "mine.toml"
        state = translator.generator.network.state_dict()
        assert all((state[name] == tensor).all() for name, tensor in generator.network.state_dict().items())

    @pytest.mark.parametrize(
        ("value", "short"),
        [
            ("file:/home/ada/w.pth", "file:w.pth"),
            ("~/w.pth", "w.pth"),
            ("C:\\Users\\ada\\w.pth", "w.pth"),
            ("w.pth", "w.pth"),
        ],
    )
    def test_kinds_of_paths(self, value: str, short: str) -> None:
        recipe, fields = shorten_paths(make_tiny().swap({"metric": {"name": "lpips", "weights": value}}))
        assert recipe.metric.parameters["weights"] == short
        assert fields == ([] if value == short else ["metric.weights"])

    def test_damaged_generator_is_not_pushed(self, run: Run, hub: HubServer, command: Command) -> None:
        path = run.path / B2A
        path.write_bytes(flip_last_byte(path.read_bytes()))
        code, _, stderr = command("push", run.path, NAME)
        assert code == 2
        assert f"{path}: is damaged" in stderr
        assert hub.requests == []


class TestErrors:
    def test_no_token(self, run: Run, hub: HubServer, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        code, _, stderr = command("push", run.path, NAME)
        assert code == 2
        assert "push: requires a token with write access" in stderr
        assert "HF_TOKEN" in stderr
        assert hub.requests == []

    @pytest.mark.parametrize(
        ("status", "message"),
        [(401, "rejected the token (401)"), (403, "the token has no write access to ada/tiny (403)")],
    )
    def test_rejected_token(self, status: int, message: str, run: Run, hub: HubServer, command: Command) -> None:
        hub.error_status = status
        code, output, stderr = command("push", run.path, NAME)
        assert code == 2
        assert message in stderr
        assert len(stderr.strip().splitlines()) == 1
        assert TOKEN not in output + stderr
        assert hub.repositories == {}

    @pytest.mark.parametrize("token", ["hf_secret of mine", "hf_sécret", "hf_se\x00cret"])
    def test_invalid_token_is_not_quoted(
        self, token: str, run: Run, hub: HubServer, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "\x00" not in token:
            monkeypatch.setenv("HF_TOKEN", token)
        else:
            monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
        code, output, stderr = command("push", run.path, NAME)
        assert code == 2
        assert "contains invalid characters" in stderr
        assert "hf_s" not in output + stderr

    def test_no_network(
        self, run: Run, unreachable_hub: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        image = run.data / "testA" / "00.png"
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits for another attempt"))
        for arguments in (
            ("push", run.path, NAME),
            ("pull", NAME, "--out", tmp_path / "got"),
            ("translate", NAME, image, "--direction", "A2B", "--out", tmp_path / "got"),
        ):
            code, output, stderr = command(*arguments)
            assert code == 2
            assert f"{unreachable_hub} cannot be reached (connection refused)" in stderr
            assert len(stderr.strip().splitlines()) == 1
            assert TOKEN not in output + stderr
        assert not (tmp_path / "got").exists()

    @pytest.mark.parametrize(
        "name", ["tiny", "a/b/c", "a//b", "../up", "a/..", "a/b--c", "-a/b", "a/b c", "a/b@", "a/b.git", "a/b@x y"]
    )
    def test_invalid_names(self, name: str, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
        for arguments in (("push", run.path, "--", name), ("pull", "--out", tmp_path / "got", "--", name)):
            code, _, stderr = command(*arguments)
            assert code == 2
            assert "is not a repository name; use owner/name" in stderr
        assert hub.requests == []

    def test_missing_package(self, run: Run, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        for arguments in (("push", run.path, NAME), ("pull", NAME, "--out", tmp_path / "got")):
            code, _, stderr = command(*arguments)
            assert code == 2
            assert f"{arguments[0]} needs the extra `hub`: pip install gantoolkit[hub]" in stderr

    def test_invalid_endpoint(self, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "hub.example")
        code, _, stderr = command("pull", NAME, "--out", tmp_path / "got")
        assert code == 2
        assert "HF_ENDPOINT is 'hub.example', which is not a URL" in stderr


class TestHostileRepositories:
    @pytest.mark.parametrize("name", [A2B, "recipe.toml", "pictures/samples.png", "README.md"])
    @pytest.mark.parametrize(
        "damage", [flip_last_byte, lambda content: content[: len(content) // 2]], ids=["flipped", "cut"]
    )
    def test_files_damaged_in_transit(
        self, name: str, damage: Callable[[bytes], bytes], run: Run, hub: HubServer, command: Command, tmp_path: Path
    ) -> None:
        push(run, NAME)
        if name in ("recipe.toml", "README.md") and damage is flip_last_byte:
            damage = lambda content: b"\xff" + content[1:]  # noqa: E731 (text has no checksum: make it invalid UTF-8)
        hub.damage[name] = damage
        code, _, stderr = command("pull", NAME, "--out", tmp_path / "got")
        assert code == 2
        assert name in stderr
        assert str(tmp_path) not in stderr
        assert not (tmp_path / "got").exists()
        assert leftovers(tmp_path) == []

    def test_damaged_generator_is_removed_from_the_cache(self, run: Run, hub: HubServer) -> None:
        push(run, NAME)
        hub.damage[A2B] = flip_last_byte
        with pytest.raises(HubError, match=r"the downloaded file was removed: A2B.safetensors: is damaged"):
            gantoolkit.load(NAME, "A2B")
        hub.damage.clear()
        assert gantoolkit.load(NAME, "A2B", device="cpu").direction == "A2B"

    @pytest.mark.parametrize(
        "name",
        [
            "generators/../../outside.safetensors",
            "generators/A2B.pkl",
            "generators/a\x1b[2Jb.safetensors",
            "generators/C:\\up.safetensors",
            "pictures/../../../etc/passwd",
            "pictures/page.html",
            "generators//A2B.safetensors",
            f"pictures/{'a' * 300}.png",
        ],
    )
    def test_files_that_no_push_writes_are_refused(
        self, name: str, run: Run, hub: HubServer, command: Command, tmp_path: Path
    ) -> None:
        push(run, NAME)
        hub.extra_files = [name]
        code, _, stderr = command("pull", NAME, "--out", tmp_path / "got")
        assert code == 2
        assert "which gantoolkit does not push; nothing was downloaded" in stderr
        assert "\x1b" not in stderr
        assert not any("resolve" in request for request in hub.requests)
        assert not (tmp_path / "got").exists()

    def test_other_files_are_not_downloaded(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        hub.extra_files = ["model.pkl", "../up.py", "/etc/passwd", "setup.py"]
        assert "model.pkl" not in pull(NAME, tmp_path / "got").files
        assert not any("model.pkl" in request for request in hub.requests)

    def test_too_many_files(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        hub.extra_files = [f"pictures/{number}.png" for number in range(100)]
        with pytest.raises(HubError, match="more than 64"):
            pull(NAME, tmp_path / "got")

    def test_generator_of_another_direction(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        repository = hub.repositories[NAME]
        repository.commit({**repository.files, B2A: repository.files[A2B]}, "swapped")
        with pytest.raises(HubError, match=r"B2A.safetensors is a generator for direction 'A2B'"):
            pull(NAME, tmp_path / "got")

    def test_repository_of_another_library(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        repository = hub.repositories[NAME]
        repository.commit({"README.md": b"# BERT", "model.safetensors": b"no"}, "another")
        for load in (lambda: pull(NAME, tmp_path / "got"), lambda: gantoolkit.load(NAME)):
            with pytest.raises(HubError, match="it was not pushed by gantoolkit"):
                load()


class TestLoad:
    def test_load_by_name_equals_load_from_the_run(self, run: Run, hub: HubServer) -> None:
        commit = push(run, NAME).commit
        image = make_image(3)
        expected = np.asarray(gantoolkit.load(run.path, "B2A", device="cpu")(image))
        for name in (NAME, f"{NAME}@{commit}"):
            output = gantoolkit.load(name, "B2A", device="cpu")(image)
            assert isinstance(output, Image.Image)
            assert np.array_equal(np.asarray(output), expected)
        downloads = [request for request in hub.requests if request.startswith("GET") and "resolve" in request]
        assert len(downloads) == 1, "one generator is downloaded once"

    def test_from_the_cache_without_a_network(self, run: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        push(run, NAME)
        gantoolkit.load(NAME, "A2B", device="cpu")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert gantoolkit.load(NAME, device="cpu").direction == "A2B"
        with pytest.raises(HubError, match="cannot be reached"):
            gantoolkit.load(NAME, "B2A", device="cpu")

    def test_local_path_takes_precedence(
        self, run: Run, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ada").mkdir()
        shutil.copytree(run.path, tmp_path / "ada" / "tiny")
        gantoolkit.load(NAME, "A2B", device="cpu")
        assert hub.requests == []

    def test_unwritable_cache(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        (tmp_path / "hf").write_text("a file instead of a folder")
        with pytest.raises(HubError, match=r"ada/tiny: .* cannot be written"):
            gantoolkit.load(NAME, "A2B")

    def test_directions(self, run: Run, hub: HubServer) -> None:
        push(run, NAME)
        with pytest.raises(HubError, match="ada/tiny: choose --direction A2B or --direction B2A"):
            gantoolkit.load(NAME)
        with pytest.raises(HubError, match="no generator for direction 'A2C'; available: A2B, B2A"):
            gantoolkit.load(NAME, "A2C")
        (run.path / B2A).unlink()
        push(run, NAME)
        assert gantoolkit.load(NAME, device="cpu").direction == "A2B"

    def test_neither_path_nor_repository(self, hub: HubServer) -> None:
        message = "no such local file or folder, and not available from the Hub: repository ada/nothing does not exist"
        with pytest.raises(HubError, match=message):
            gantoolkit.load("ada/nothing")
        with pytest.raises(
            CheckpointError, match="no such file or folder, and not the name of a repository on the Hub"
        ):
            gantoolkit.load("nothing")
        with pytest.raises(CheckpointError, match="not the name of a repository on the Hub"):
            gantoolkit.load("generators/A2B.safetensors")
        requests = list(hub.requests)
        with pytest.raises(CheckpointError, match="no such file"):
            gantoolkit.load(Path("ada/nothing"))  # a Path is never a repository
        assert hub.requests == requests


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


class TestCard:
    def test_card_describes_the_run(self, run: Run) -> None:
        card = make_card(run, repository=NAME, license="mit")
        assert front_matter(card.text) == {
            "library_name": "gantoolkit",
            "pipeline_tag": "image-to-image",
            "license": "mit",
            "tags": ["gantoolkit", "image-to-image", "gan", "cyclegan"],
        }
        assert f'gantoolkit.load("{NAME}", "A2B")' in card.text
        assert "- `generator.width` is `4` (default `64`)" in card.text
        assert "the folder `images` with 5 images of A and 4 of B." in card.text
        assert f"`gantoolkit` `{gantoolkit.__version__}`" in card.text
        assert "after 4 steps." in card.text
        assert card.picture == run.folder.samples / "step-00000004.png"
        assert make_card(run, repository=NAME, license="mit") == card

    def test_scores_of_training_have_no_intervals(self, run: Run) -> None:
        rows = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
        (value,) = [row["evaluation/A2B/l1"] for row in rows if "evaluation/A2B/l1" in row]
        assert f"| `A2B` | `l1` | {value:.1f} | `levels of 255` | not measured | 4 |" in make_card(run).text

    def test_missing_information_is_reported_as_missing(self, run: Run) -> None:
        run.folder.log.unlink()
        shutil.rmtree(run.folder.samples)
        shutil.rmtree(run.folder.checkpoints)
        text = make_card(run).text
        assert "## Scores\n\nNot measured.\n" in text
        assert "## Samples\n\nNo samples are available.\n" in text
        assert "images of A" not in text
        assert "![" not in text

    def test_scores_of_evaluate_have_intervals(self, run: Run, command: Command, tmp_path: Path) -> None:
        assert command("evaluate", run.path, "--out", tmp_path / "scores", "--device", "cpu")[0] == 0
        (scores,) = [scores for scores in read_scores(tmp_path / "scores" / "scores.json") if scores.path]
        psnr = scores.directions["A2B"].scores["psnr"]
        text = make_card(run, scores=tmp_path / "scores").text
        (line,) = re.findall(r"^\| `A2B` \| `psnr` .*$", text, re.MULTILINE)
        low, high = map(float, re.findall(r"\[(.*), (.*)\]", line)[0])
        assert low == pytest.approx(psnr.low, abs=0.06)
        assert high == pytest.approx(psnr.high, abs=0.06)
        assert "not with the published weights" not in text
        shutil.move(tmp_path / "scores", run.path / "scores")
        assert make_card(run).text == text

    def test_scores_of_other_weights_are_marked(self, run: Run, command: Command) -> None:
        assert command("evaluate", run.path, "--out", run.path / "scores", "--device", "cpu")[0] == 0
        run.train(device="cpu", stop_at=6)
        assert "measured at step 4, not with the published weights" in make_card(run).text

    def test_scores_of_another_run(self, run: Run, command: Command, tmp_path: Path) -> None:
        assert command("evaluate", run.path, "--out", tmp_path / "scores", "--device", "cpu")[0] == 0
        other = Run.open(shutil.copytree(run.path, tmp_path / "other"))
        with pytest.raises(HubError, match=r"contains no scores of .*other; create them with: gantoolkit evaluate"):
            make_card(other, scores=tmp_path / "scores")

    def test_command(self, run: Run, command: Command, tmp_path: Path) -> None:
        code, output, _ = command("card", run.path)
        assert code == 0
        assert command("card", run.path, "--out", tmp_path / "README.md")[0] == 0
        assert (tmp_path / "README.md").read_text(encoding="utf-8") == output == make_card(run).text

    @pytest.mark.parametrize("license", ["MIT license", "mit\nevil: true", "", "a: b"])
    def test_invalid_license(self, license: str, run: Run) -> None:
        with pytest.raises(HubError, match="is not a license identifier"):
            make_card(run, license=license)

    HOSTILE = (
        "x\n---\nlicense: gpl\n---\n",
        "<script>alert(1)</script>",
        "`` ` ``` </code><img src=x onerror=alert(1)>",
        "](http://evil.example) ![x](http://evil.example/x.png)",
        "a | b | c\n| d",
        "{{ 7 * 7 }} {% endraw %}",
        "\x1b[2J\u202eevil\u2028",
        "```\n# heading",
        " ",
        "",
    )

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_recipe(self, name: str, run: Run) -> None:
        recipe = run.recipe.swap({"name": name})
        run = Run(run.folder, recipe, None)
        metadata = run.folder.read_metadata()
        run.folder.metadata_file.write_text(
            json.dumps({**metadata, "data": f"/home/{name}", "packages": {name: name}, "plugins": {name: name}})
        )
        text = make_card(run).text
        assert front_matter(text)["tags"] == ["gantoolkit", "image-to-image", "gan", "cyclegan"]
        assert set(front_matter(text)) == {"library_name", "pipeline_tag", "tags"}
        prose = without_code(text)
        for evil in ("<", "alert", "evil", "gpl", "49", "heading", "endraw"):
            assert evil not in prose
        assert re.findall(r"^#+ (.*)$", prose, re.MULTILINE)[1:] == [
            *("Usage", "Recipe", "Data", "Training", "Scores", "Samples", "Limitations")
        ]

    @given(text=st.text(alphabet=st.sampled_from("`|<>\n\\ \x1bax"), max_size=30))
    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_text_cannot_close_a_code_span(self, text: str) -> None:
        span = format_code(text)
        ticks = re.match("`+", span)[0]  # type: ignore[index]
        assert span.endswith(ticks)
        assert ticks not in re.findall("`+", span[len(ticks) : -len(ticks)])
        assert span.isprintable()
        assert not re.search(r"(?<!\\)\|", span)

    @given(text=st.text(alphabet=st.sampled_from("`~\na"), max_size=40))
    def test_text_cannot_close_a_fence(self, text: str) -> None:
        assert fence(text) not in text
        assert len(fence(text)) >= 3


def without_code(text: str) -> str:
    """Remove code blocks and code spans from a card, as CommonMark parses them."""
    prose, fence = [], ""
    for line in text.split("---\n", 2)[2].splitlines():
        opening = re.match("(`{3,})([a-z]*)$", line)
        if not fence and opening:
            fence = opening[1]
        elif fence and re.fullmatch(f"`{{{len(fence)},}}", line):
            fence = ""
        elif not fence:
            prose.append(re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "CODE", line))
    return "\n".join(prose)


class TestNames:
    def test_parse(self) -> None:
        assert RepositoryName.parse("ada/h2z") == RepositoryName("ada/h2z", None)
        assert RepositoryName.parse("ada/h2z@refs/pr/1") == RepositoryName("ada/h2z", "refs/pr/1")
        assert str(RepositoryName.parse("ada/h2z@v1")) == "ada/h2z@v1"

    @given(text=st.text(max_size=40) | st.from_regex(r"[a-z_.-]{1,6}/[a-z_.-]{1,6}(@[a-z.]{1,4})?", fullmatch=True))
    @settings(max_examples=300)
    def test_accepted_names_are_valid_for_huggingface_hub(self, text: str) -> None:
        try:
            name = RepositoryName.parse(text)
        except GantoolkitError:
            return
        huggingface_hub.utils.validate_repo_id(name.repository)


def test_fake_hub_checks_its_requests(hub: HubServer) -> None:
    import requests

    wrong = requests.put(f"{hub.url}/objects/{hashlib.sha256(b'one').hexdigest()}", data=b"two", timeout=PATIENCE)
    assert wrong.status_code == 400
    assert requests.post(f"{hub.url}/api/repos/create", json={}, timeout=PATIENCE).status_code == 401


def test_pulled_header_equals_the_pushed_header(run: Run, hub: HubServer, tmp_path: Path) -> None:
    push(run, NAME)
    pull(NAME, tmp_path / "got")
    assert read_generator_header(tmp_path / "got" / A2B) == read_generator_header(run.path / A2B)
