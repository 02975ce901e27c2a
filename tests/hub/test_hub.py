"""Sharing through a stand-in of the Hub on this machine: real requests of huggingface_hub, no network."""

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
from _helpers.small import make_dataset, make_image, make_tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import gantoolkit
from gantoolkit.errors import CheckpointError, GantoolkitError, HubError
from gantoolkit.files.tensors import read_tensors
from gantoolkit.hub import RepositoryName, make_card, pull, push
from gantoolkit.hub.card import _fence, _set_as_code
from gantoolkit.hub.paths import shorten_paths
from gantoolkit.run import Run
from gantoolkit.runs import read_generator_header, write_generator

Command = Callable[..., tuple[int, str, str]]
# huggingface_hub 2.4 uploads in a way that httpx2 would rather have another.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "ada/tiny"
A2B, B2A = "generators/A2B.safetensors", "generators/B2A.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that measured itself while it trained; each test has its own copy."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = make_tiny().swap({"training.evaluate_every": 4, "metric": "l1"})
    data = make_dataset(folder / "images")
    for domain in "AB":  # the metric wants pairs
        for number in range(2):
            make_image(number).save(data / f"test{domain}" / f"{number:02d}.png")
    return gantoolkit.train(recipe, data, folder / "run", device="cpu", stop_at=4).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub reads these from the environment when it is imported, which it may have been."""
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
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address at which nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    return f"http://127.0.0.1:{port}"


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def flip_last_byte(held: bytes) -> bytes:
    return held[:-1] + bytes([held[-1] ^ 1])


class TestPushAndPull:
    def test_the_same_bytes_come_back(self, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
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
        found = {
            path.relative_to(tmp_path / "got").as_posix() for path in (tmp_path / "got").rglob("*") if path.is_file()
        }
        assert found == set(repository.files) - {".gitattributes"}
        for name in (A2B, B2A):
            assert (tmp_path / "got" / name).read_bytes() == (run.path / name).read_bytes()
        assert leftovers(tmp_path) == []

    def test_what_was_pulled_translates(self, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
        push(run, NAME)
        pull(NAME, tmp_path / "got")
        make_image(3).save(tmp_path / "one.png")
        for place, model in enumerate((run.path, tmp_path / "got", tmp_path / "got" / A2B, NAME)):
            out = tmp_path / str(place)
            code, _, _ = command("translate", model, tmp_path / "one.png", "--direction", "A2B", "--out", out)
            assert code == 0
            assert (out / "one.png").read_bytes() == (tmp_path / "0" / "one.png").read_bytes()
        assert command("show", tmp_path / "got")[0] == 0
        code, output, _ = command(
            *("export", NAME, "--direction", "B2A", "--format", "safetensors", "--out", tmp_path / "w.safetensors")
        )
        assert code == 0
        assert "B2A" in output

    def test_what_was_pulled_is_pushed_again(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        pull(NAME, tmp_path / "got")
        push(Run.open(tmp_path / "got"), "ada/again")
        again = hub.repositories["ada/again"].files
        assert again[A2B] == (run.path / A2B).read_bytes()
        assert "What it was trained on is not noted" in again["README.md"].decode()

    def test_what_was_pulled_has_no_data(self, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
        push(run, NAME)
        pull(NAME, tmp_path / "got")
        code, _, complaint = command("train", "--resume", tmp_path / "got")
        assert code == 2
        assert "say with --data where the data set is" in complaint

    def test_a_second_push_removes_what_the_first_left_and_nothing_else(self, run: Run, hub: HubServer) -> None:
        push(run, NAME)
        repository = hub.repositories[NAME]
        repository.commit({**repository.files, "LICENSE": b"mine", "pictures/old.png": b"old"}, "by hand")
        (run.path / B2A).unlink()
        shutil.rmtree(run.folder.samples)
        made = push(run, NAME)
        assert set(repository.files) == {".gitattributes", "LICENSE", "README.md", "recipe.toml", A2B}
        assert made.commit == repository.head

    def test_a_revision(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        first = push(run, NAME).commit
        (run.path / B2A).unlink()
        push(run, NAME)
        assert B2A in pull(f"{NAME}@{first}", tmp_path / "first").files
        assert B2A not in pull(NAME, tmp_path / "now").files
        with pytest.raises(HubError, match="ada/tiny has no revision 'v9'"):
            pull(f"{NAME}@v9", tmp_path / "never")

    def test_a_private_repository(
        self, run: Run, hub: HubServer, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert command("push", run.path, NAME, "--private")[0] == 0
        assert hub.repositories[NAME].private
        assert command("pull", NAME, "--out", tmp_path / "with")[0] == 0
        monkeypatch.delenv("HF_TOKEN")
        code, _, complaint = command("pull", NAME, "--out", tmp_path / "without")
        assert code == 2
        assert "there is no repository ada/tiny at http" in complaint
        assert "it is private and no token was given" in complaint

    def test_a_login_is_a_token_too(
        self, run: Run, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
        push(run, NAME)
        assert NAME in hub.repositories

    def test_a_folder_that_is_there(self, run: Run, hub: HubServer, command: Command) -> None:
        push(run, NAME)
        code, _, complaint = command("pull", NAME, "--out", run.path)
        assert code == 2
        assert "is there already; choose another --out" in complaint


class TestWhatIsPushed:
    def test_no_path_and_no_state_of_training(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        for name, held in hub.repositories[NAME].files.items():
            for secret in (str(tmp_path), str(run.data), str(Path.home()), TOKEN):
                assert secret.encode() not in held, name
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
        assert all(b"secret" not in held for held in hub.repositories[NAME].files.values())
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
    def test_forms_of_paths(self, value: str, short: str) -> None:
        recipe, fields = shorten_paths(make_tiny().swap({"metric": {"name": "lpips", "weights": value}}))
        assert recipe.metric.parameters["weights"] == short
        assert fields == ([] if value == short else ["metric.weights"])

    def test_a_damaged_generator_stays_here(self, run: Run, hub: HubServer, command: Command) -> None:
        path = run.path / B2A
        path.write_bytes(flip_last_byte(path.read_bytes()))
        code, _, complaint = command("push", run.path, NAME)
        assert code == 2
        assert f"{path}: is damaged" in complaint
        assert hub.asked == []


class TestRefused:
    def test_no_token(self, run: Run, hub: HubServer, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        code, _, complaint = command("push", run.path, NAME)
        assert code == 2
        assert "push: needs a token with the right to write" in complaint
        assert "HF_TOKEN" in complaint
        assert hub.asked == []

    @pytest.mark.parametrize(
        ("status", "said"), [(401, "refuses the token (401)"), (403, "the token may not do that in ada/tiny (403)")]
    )
    def test_a_refused_token(self, status: int, said: str, run: Run, hub: HubServer, command: Command) -> None:
        hub.refuse = status
        code, output, complaint = command("push", run.path, NAME)
        assert code == 2
        assert said in complaint
        assert len(complaint.strip().splitlines()) == 1
        assert TOKEN not in output + complaint
        assert hub.repositories == {}

    @pytest.mark.parametrize("token", ["hf_secret of mine", "hf_sécret", "hf_se\x00cret"])
    def test_a_token_that_cannot_be_sent_is_not_quoted(
        self, token: str, run: Run, hub: HubServer, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "\x00" not in token:
            monkeypatch.setenv("HF_TOKEN", token)
        else:
            monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
        code, output, complaint = command("push", run.path, NAME)
        assert code == 2
        assert "holds signs that no token has" in complaint
        assert "hf_s" not in output + complaint

    def test_no_network(
        self, run: Run, nobody: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        image = run.data / "testA" / "00.png"
        began = time.monotonic()
        for arguments in (
            ("push", run.path, NAME),
            ("pull", NAME, "--out", tmp_path / "got"),
            ("translate", NAME, image, "--direction", "A2B", "--out", tmp_path / "got"),
        ):
            code, output, complaint = command(*arguments)
            assert code == 2
            assert f"{nobody} cannot be reached (connection refused)" in complaint
            assert len(complaint.strip().splitlines()) == 1
            assert TOKEN not in output + complaint
        assert time.monotonic() - began < 15  # each retry of huggingface_hub's would wait
        assert not (tmp_path / "got").exists()

    @pytest.mark.parametrize(
        "name", ["tiny", "a/b/c", "a//b", "../up", "a/..", "a/b--c", "-a/b", "a/b c", "a/b@", "a/b.git", "a/b@x y"]
    )
    def test_names_that_are_none(self, name: str, run: Run, hub: HubServer, command: Command, tmp_path: Path) -> None:
        for arguments in (("push", run.path, "--", name), ("pull", "--out", tmp_path / "got", "--", name)):
            code, _, complaint = command(*arguments)
            assert code == 2
            assert "is no name of a repository; it is owner/name" in complaint
        assert hub.asked == []

    def test_the_package_is_missing(
        self, run: Run, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        for arguments in (("push", run.path, NAME), ("pull", NAME, "--out", tmp_path / "got")):
            code, _, complaint = command(*arguments)
            assert code == 2
            assert f"{arguments[0]}: needs the extra `hub`: pip install gantoolkit[hub]" in complaint

    def test_an_endpoint_that_is_none(self, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "hub.example")
        code, _, complaint = command("pull", NAME, "--out", tmp_path / "got")
        assert code == 2
        assert "HF_ENDPOINT is 'hub.example', which is no address" in complaint


class TestHostileRepositories:
    @pytest.mark.parametrize("name", [A2B, "recipe.toml", "pictures/samples.png", "README.md"])
    @pytest.mark.parametrize("damage", [flip_last_byte, lambda held: held[: len(held) // 2]], ids=["flipped", "cut"])
    def test_what_is_damaged_on_the_way(
        self, name: str, damage: Callable[[bytes], bytes], run: Run, hub: HubServer, command: Command, tmp_path: Path
    ) -> None:
        push(run, NAME)
        if name in ("recipe.toml", "README.md") and damage is flip_last_byte:
            damage = lambda held: b"\xff" + held[1:]  # noqa: E731 (text has no checksum; it is no text any more)
        hub.damage[name] = damage
        code, _, complaint = command("pull", NAME, "--out", tmp_path / "got")
        assert code == 2
        assert name in complaint
        assert str(tmp_path) not in complaint
        assert not (tmp_path / "got").exists()
        assert leftovers(tmp_path) == []

    def test_a_damaged_generator_is_not_kept_in_the_cache(self, run: Run, hub: HubServer) -> None:
        push(run, NAME)
        hub.damage[A2B] = flip_last_byte
        with pytest.raises(HubError, match=r"what came from the Hub is not kept: A2B.safetensors: is damaged"):
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
    def test_names_that_no_push_writes(
        self, name: str, run: Run, hub: HubServer, command: Command, tmp_path: Path
    ) -> None:
        push(run, NAME)
        hub.listed = [name]
        code, _, complaint = command("pull", NAME, "--out", tmp_path / "got")
        assert code == 2
        assert "which gantoolkit does not push; nothing is taken from there" in complaint
        assert "\x1b" not in complaint
        assert not any("resolve" in asked for asked in hub.asked)
        assert not (tmp_path / "got").exists()

    def test_what_lies_outside_is_not_fetched(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        hub.listed = ["model.pkl", "../up.py", "/etc/passwd", "setup.py"]
        assert "model.pkl" not in pull(NAME, tmp_path / "got").files
        assert not any("model.pkl" in asked for asked in hub.asked)

    def test_too_many(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        hub.listed = [f"pictures/{number}.png" for number in range(100)]
        with pytest.raises(HubError, match="more than 64"):
            pull(NAME, tmp_path / "got")

    def test_a_generator_under_the_other_name(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        repository = hub.repositories[NAME]
        repository.commit({**repository.files, B2A: repository.files[A2B]}, "swapped")
        with pytest.raises(HubError, match=r"B2A.safetensors says that it translates 'A2B'"):
            pull(NAME, tmp_path / "got")

    def test_somebody_elses_model(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        repository = hub.repositories[NAME]
        repository.commit({"README.md": b"# BERT", "model.safetensors": b"no"}, "another")
        for take in (lambda: pull(NAME, tmp_path / "got"), lambda: gantoolkit.load(NAME)):
            with pytest.raises(HubError, match="it was not pushed by gantoolkit"):
                take()


class TestLoad:
    def test_by_name_as_from_the_run(self, run: Run, hub: HubServer) -> None:
        commit = push(run, NAME).commit
        image = make_image(3)
        wanted = np.asarray(gantoolkit.load(run.path, "B2A", device="cpu")(image))
        for name in (NAME, f"{NAME}@{commit}"):
            found = gantoolkit.load(name, "B2A", device="cpu")(image)
            assert isinstance(found, Image.Image)
            assert np.array_equal(np.asarray(found), wanted)
        fetched = [asked for asked in hub.asked if asked.startswith("GET") and "resolve" in asked]
        assert len(fetched) == 1, "one generator, once"

    def test_from_the_cache_without_a_network(self, run: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        push(run, NAME)
        gantoolkit.load(NAME, "A2B", device="cpu")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert gantoolkit.load(NAME, device="cpu").direction == "A2B"
        with pytest.raises(HubError, match="cannot be reached"):
            gantoolkit.load(NAME, "B2A", device="cpu")

    def test_what_is_here_wins(self, run: Run, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ada").mkdir()
        shutil.copytree(run.path, tmp_path / "ada" / "tiny")
        gantoolkit.load(NAME, "A2B", device="cpu")
        assert hub.asked == []

    def test_a_cache_that_cannot_be_written(self, run: Run, hub: HubServer, tmp_path: Path) -> None:
        push(run, NAME)
        (tmp_path / "hf").write_text("a file where a folder is needed")
        with pytest.raises(HubError, match=r"ada/tiny: .* cannot be written"):
            gantoolkit.load(NAME, "A2B")

    def test_directions(self, run: Run, hub: HubServer) -> None:
        push(run, NAME)
        with pytest.raises(HubError, match="ada/tiny: say --direction A2B or --direction B2A"):
            gantoolkit.load(NAME)
        with pytest.raises(HubError, match="no generator for direction 'A2C'; there is A2B, B2A"):
            gantoolkit.load(NAME, "A2C")
        (run.path / B2A).unlink()
        push(run, NAME)
        assert gantoolkit.load(NAME, device="cpu").direction == "A2B"

    def test_what_is_neither(self, hub: HubServer) -> None:
        with pytest.raises(
            HubError, match="no such file or folder here, and not to be had from the Hub: there is no repo"
        ):
            gantoolkit.load("ada/nothing")
        with pytest.raises(
            CheckpointError, match="no such file or folder, and no repository on the Hub, whose name is"
        ):
            gantoolkit.load("nothing")
        with pytest.raises(CheckpointError, match="no repository on the Hub"):
            gantoolkit.load("generators/A2B.safetensors")
        asked = list(hub.asked)
        with pytest.raises(CheckpointError, match="no such file"):
            gantoolkit.load(Path("ada/nothing"))  # a path is meant
        assert hub.asked == asked


def front_of(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


class TestCard:
    def test_it_says_what_the_files_say(self, run: Run) -> None:
        card = make_card(run, repository=NAME, license="mit")
        assert front_of(card.text) == {
            "library_name": "gantoolkit",
            "pipeline_tag": "image-to-image",
            "license": "mit",
            "tags": ["gantoolkit", "image-to-image", "gan", "cyclegan"],
        }
        assert f'gantoolkit.load("{NAME}", "A2B")' in card.text
        assert "- `generator.width` is `4`, by default `64`" in card.text
        assert "the folder `images`: 5 images of A, 4 of B." in card.text
        assert f"`gantoolkit` `{gantoolkit.__version__}`" in card.text
        assert "after 4 steps," in card.text
        assert card.picture == run.folder.samples / "step-00000004.png"
        assert make_card(run, repository=NAME, license="mit") == card

    def test_figures_while_training_have_no_intervals(self, run: Run) -> None:
        rows = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
        (value,) = [row["evaluation/A2B/l1"] for row in rows if "evaluation/A2B/l1" in row]
        assert f"| `A2B` | `l1` | {value:.1f} | not measured | 4 |" in make_card(run).text

    def test_nothing_is_invented(self, run: Run) -> None:
        run.folder.log.unlink()
        shutil.rmtree(run.folder.samples)
        shutil.rmtree(run.folder.checkpoints)
        text = make_card(run).text
        assert "## Figures\n\nNot measured.\n" in text
        assert "## Pictures\n\nThere are none.\n" in text
        assert "images of A," not in text
        assert "![" not in text

    def test_figures_with_intervals_come_from_evaluate(self, run: Run, command: Command, tmp_path: Path) -> None:
        assert command("evaluate", run.path, "--out", tmp_path / "scores", "--device", "cpu")[0] == 0
        (held,) = [each for each in json.loads((tmp_path / "scores" / "scores.json").read_text()) if each["path"]]
        figure = held["directions"]["A2B"]["figures"]["psnr"]
        text = make_card(run, scores=tmp_path / "scores").text
        shown = re.findall(r"^\| `A2B` \| `psnr` .*$", text, re.MULTILINE)
        assert len(shown) == 1
        low, high = map(float, re.findall(r"\[(.*), (.*)\]", shown[0])[0])
        assert low == pytest.approx(figure["low"], abs=0.06)
        assert high == pytest.approx(figure["high"], abs=0.06)
        assert "not with the weights that are here" not in text
        shutil.move(tmp_path / "scores", run.path / "scores")
        assert make_card(run).text == text

    def test_figures_of_other_weights_are_said_to_be(self, run: Run, command: Command) -> None:
        assert command("evaluate", run.path, "--out", run.path / "scores", "--device", "cpu")[0] == 0
        run.train(device="cpu", stop_at=6)
        assert "measured at step 4, not with the weights that are here" in make_card(run).text

    def test_scores_of_another_run(self, run: Run, command: Command, tmp_path: Path) -> None:
        assert command("evaluate", run.path, "--out", tmp_path / "scores", "--device", "cpu")[0] == 0
        other = Run.open(shutil.copytree(run.path, tmp_path / "other"))
        with pytest.raises(HubError, match=r"holds no scores of .*other; make them with: gantoolkit evaluate"):
            make_card(other, scores=tmp_path / "scores")

    def test_the_command(self, run: Run, command: Command, tmp_path: Path) -> None:
        code, output, _ = command("card", run.path)
        assert code == 0
        assert command("card", run.path, "--out", tmp_path / "README.md")[0] == 0
        assert (tmp_path / "README.md").read_text(encoding="utf-8") == output == make_card(run).text

    @pytest.mark.parametrize("license", ["MIT license", "mit\nevil: true", "", "a: b"])
    def test_a_license_that_is_none(self, license: str, run: Run) -> None:
        with pytest.raises(HubError, match="is no name of a license"):
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
    def test_a_hostile_recipe(self, name: str, run: Run) -> None:
        recipe = run.recipe.swap({"name": name})
        run = Run(run.folder, recipe, None)
        about = run.folder.read_metadata()
        run.folder.metadata_file.write_text(
            json.dumps({**about, "data": f"/home/{name}", "packages": {name: name}, "plugins": {name: name}})
        )
        text = make_card(run).text
        assert front_of(text)["tags"] == ["gantoolkit", "image-to-image", "gan", "cyclegan"]
        assert set(front_of(text)) == {"library_name", "pipeline_tag", "tags"}
        prose = without_code(text)
        for evil in ("<", "alert", "evil", "gpl", "49", "heading", "endraw"):
            assert evil not in prose
        assert re.findall(r"^#+ (.*)$", prose, re.MULTILINE)[1:] == [
            *("Use it", "Recipe", "Data", "Training", "Figures", "Pictures", "Limits")
        ]

    @given(text=st.text(alphabet=st.sampled_from("`|<>\n\\ \x1bax"), max_size=30))
    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_code_cannot_be_left(self, text: str) -> None:
        shown = _set_as_code(text)
        fence = re.match("`+", shown)[0]  # type: ignore[index]
        assert shown.endswith(fence)
        assert fence not in re.findall("`+", shown[len(fence) : -len(fence)])
        assert shown.isprintable()
        assert not re.search(r"(?<!\\)\|", shown)

    @given(text=st.text(alphabet=st.sampled_from("`~\na"), max_size=40))
    def test_a_fence_cannot_be_closed(self, text: str) -> None:
        assert _fence(text) not in text
        assert len(_fence(text)) >= 3


def without_code(text: str) -> str:
    """A card without its fences and spans of code, read as CommonMark reads them."""
    kept, fence = [], ""
    for line in text.split("---\n", 2)[2].splitlines():
        found = re.match("(`{3,})([a-z]*)$", line)
        if not fence and found:
            fence = found[1]
        elif fence and re.fullmatch(f"`{{{len(fence)},}}", line):
            fence = ""
        elif not fence:
            kept.append(re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "CODE", line))
    return "\n".join(kept)


class TestNames:
    def test_parts(self) -> None:
        assert RepositoryName.parse("ada/h2z") == RepositoryName("ada/h2z", None)
        assert RepositoryName.parse("ada/h2z@refs/pr/1") == RepositoryName("ada/h2z", "refs/pr/1")
        assert str(RepositoryName.parse("ada/h2z@v1")) == "ada/h2z@v1"

    @given(text=st.text(max_size=40) | st.from_regex(r"[a-z_.-]{1,6}/[a-z_.-]{1,6}(@[a-z.]{1,4})?", fullmatch=True))
    @settings(max_examples=300)
    def test_any_text_is_a_name_for_huggingface_hub_or_refused(self, text: str) -> None:
        try:
            name = RepositoryName.parse(text)
        except GantoolkitError:
            return
        huggingface_hub.utils.validate_repo_id(name.repository)


def test_the_stand_in_checks_what_it_is_given(hub: HubServer) -> None:
    import requests

    wrong = requests.put(f"{hub.url}/objects/{hashlib.sha256(b'one').hexdigest()}", data=b"two", timeout=5)
    assert wrong.status_code == 400
    assert requests.post(f"{hub.url}/api/repos/create", json={}, timeout=5).status_code == 401


def test_a_header_reads_as_it_was_pushed(run: Run, hub: HubServer, tmp_path: Path) -> None:
    push(run, NAME)
    pull(NAME, tmp_path / "got")
    assert read_generator_header(tmp_path / "got" / A2B) == read_generator_header(run.path / A2B)
