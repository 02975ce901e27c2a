"""Translation of many images: patterns, folders and archives as sources, the manifest, and resuming."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from _helpers.small import make_image
from PIL import Image

import gantoolkit
from gantoolkit.cli.app import main
from gantoolkit.errors import DataError
from gantoolkit.inference.manifest import NAME, Manifest
from gantoolkit.inference.sources import open_sources
from gantoolkit.recipes import Recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from _helpers.small import make_dataset, make_tiny

    root = tmp_path_factory.mktemp("model")
    run = gantoolkit.train(make_tiny(), make_dataset(root / "images"), root / "run", device="cpu", stop_at=1)
    return str(run.folder.generators / "A2B.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "deep/b.png", "deep/er/c.jpg", "deep/er/d.tif")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        make_image(number).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def relative_paths(*sources: str | Path, out: Path | None = None) -> list[str]:
    with open_sources(sources, out=out) as files:
        return [file.relative_path.as_posix() for file in files]


def manifest_of(out: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (out / NAME).read_text().splitlines()]
    return {line["target"]: line for line in lines}


class TestSources:
    def test_pattern_keeps_the_folders_below_its_fixed_part(self, photos: Path) -> None:
        assert relative_paths(f"{photos}/**/*.png") == ["a.png", "deep/b.png"]
        assert relative_paths(f"{photos}/deep/*/*") == ["er/c.jpg", "er/d.tif"]
        assert relative_paths(f"{photos}/[a]*.png") == ["a.png"]
        with pytest.raises(DataError, match=r"\*\.gif: matches no image"):
            relative_paths(f"{photos}/**/*.gif")

    def test_existing_file_with_pattern_characters_is_not_a_pattern(self, photos: Path) -> None:
        shutil.copy(photos / "a.png", photos / "[a].png")
        assert relative_paths(photos / "[a].png") == ["[a].png"]

    def test_pattern_selects_the_same_files_as_a_folder(self, photos: Path, tmp_path: Path) -> None:
        (photos / "._a.png").write_bytes(b"")
        (photos / "notes.txt").write_text("")
        shutil.make_archive(str(photos / "more"), "zip", photos / "deep")
        assert relative_paths(f"{photos}/*") == ["a.png", "b.png", "er/c.jpg", "er/d.tif"]
        assert relative_paths(f"{photos}/**") == relative_paths(f"{photos}/**/*")
        with pytest.raises(DataError, match=r"\*\*in: is not a valid pattern"):
            relative_paths(f"{photos}/**in")

    def test_file_given_twice_is_translated_once(self, photos: Path) -> None:
        assert relative_paths(photos, photos / "a.png", f"{photos}/*.png") == [
            "a.png",
            "deep/b.png",
            "deep/er/c.jpg",
            "deep/er/d.tif",
        ]

    def test_output_folder_may_contain_the_images(self, photos: Path, tmp_path: Path) -> None:
        before = relative_paths(photos)
        assert relative_paths(photos, out=tmp_path) == before
        assert relative_paths(f"{photos}/**/*.png", out=photos) == ["a.png", "deep/b.png"]

    def test_archive_is_read_like_a_folder(self, photos: Path, tmp_path: Path) -> None:
        for kind in ("zip", "gztar"):
            archive = Path(shutil.make_archive(str(tmp_path / kind), kind, photos))
            with open_sources([archive]) as files:
                assert [file.relative_path.as_posix() for file in files] == relative_paths(photos)
                assert [file.name for file in files] == [f"{archive}/{path}" for path in relative_paths(photos)]
                assert np.array_equal(np.asarray(Image.open(files[0].path)), np.asarray(Image.open(photos / "a.png")))
                unpacked = files[0].path
            assert not unpacked.exists()

    def test_hostile_archive_is_rejected(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
            file.writestr("../evil.png", b"")
        with pytest.raises(DataError, match="points outside the archive"):
            relative_paths(tmp_path / "evil.zip")

    def test_output_folder_among_the_images_is_ignored(self, photos: Path) -> None:
        before = relative_paths(photos)
        shutil.copytree(photos / "deep", photos / "out")
        assert relative_paths(photos, out=photos / "out") == before
        assert relative_paths(f"{photos}/**/*.png", out=photos / "out") == ["a.png", "deep/b.png"]


class TestManifest:
    def test_manifest_names_the_source_of_each_translation(self, photos: Path, model: str, tmp_path: Path) -> None:
        (photos / "broken.png").write_text("broken")
        out = tmp_path / "out"
        assert main(["translate", model, str(photos), "--out", str(out)]) == 3
        manifest = manifest_of(out)
        assert {target: line["source"] for target, line in manifest.items()} == {
            "a.png": str(photos / "a.png"),
            "broken.png": str(photos / "broken.png"),
            "deep/b.png": str(photos / "deep/b.png"),
            "deep/er/c.jpg": str(photos / "deep/er/c.jpg"),
            "deep/er/d.png": str(photos / "deep/er/d.tif"),
        }
        assert "is not a readable image" in manifest["broken.png"]["problem"]
        assert all("problem" not in line for target, line in manifest.items() if target != "broken.png")
        assert len({line["generator"] for line in manifest.values()}) == 1

    def test_second_call_translates_new_files_only(
        self, photos: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, command = tmp_path / "out", ["translate", model, str(photos), "--out", str(tmp_path / "out")]
        main(command)
        times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*g")}
        capsys.readouterr()
        assert main(command) == 0
        assert "0 files translated" in (output := capsys.readouterr().out)
        assert "4 there already" in output
        assert {path: path.stat().st_mtime_ns for path in times} == times
        make_image(9).save(photos / "a.png")  # another image
        (out / "deep" / "b.png").unlink()  # a missing translation
        (out / "deep" / "er" / "c.jpg").write_bytes(b"")  # an incomplete translation
        make_image(5).save(photos / "new.png")
        main(command)
        assert "4 files translated" in (output := capsys.readouterr().out)
        assert "1 there already" in output
        for options, count in ((["--resize", "24"], 5), (["--resize", "24"], 0), (["--resize", "24", "--again"], 5)):
            main([*command, *options])
            assert f"{count} files translated" in capsys.readouterr().out

    def test_interrupted_translation_resumes(
        self, photos: Path, model: str, tmp_path: Path, monkeypatch, capsys
    ) -> None:
        from gantoolkit.inference import Translator

        translate, batch_sizes = Translator.translate_pixels, []

        def stop(self: Translator, pixels: list[np.ndarray]) -> list[np.ndarray]:
            batch_sizes.append(len(pixels))
            if len(batch_sizes) == 3:
                raise KeyboardInterrupt
            return translate(self, pixels)

        command = ["translate", model, str(photos), "--out", str(tmp_path / "out"), "--batch-size", "1"]
        with monkeypatch.context() as patch:
            patch.setattr(Translator, "translate_pixels", stop)
            assert main(command) == 130
        with (tmp_path / "out" / NAME).open("a") as file:
            file.write('{"target": "cut o')  # as after a power failure
        capsys.readouterr()
        assert main(command) == 0
        assert "2 files translated" in (output := capsys.readouterr().out)
        assert "2 there already" in output
        assert len(manifest_of(tmp_path / "out")) == 4

    @pytest.mark.parametrize("name", ["x\u2028y.png", "x\x85y.png", "ü.png", "x\udcffy.png"])
    def test_manifest_stores_any_name(self, name: str, model: str, tmp_path: Path, capsys) -> None:
        (tmp_path / "in").mkdir()
        make_image(0).save(tmp_path / "in" / name)
        (tmp_path / "in" / f"{name}.broken.png").write_text("")
        command = ["translate", model, str(tmp_path / "in"), "--out", str(tmp_path / "out")]
        for expected in ("1 file translated", "1 there already"):
            assert main(command) == 3
            assert expected in capsys.readouterr().out
        assert len(manifest_of(tmp_path / "out")) == 2

    def test_other_generator_translates_again(
        self, photos: Path, model: str, tiny: Recipe, tmp_path: Path, capsys
    ) -> None:
        other = str(Path(model).with_name("B2A.safetensors"))
        for generator in (model, other):
            main(["translate", generator, str(photos), "--out", str(tmp_path / "out")])
            assert "4 files translated" in capsys.readouterr().out

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_unwritable_folder_is_named(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(DataError, match="cannot be written"):
            Manifest(tmp_path / "out", {})

    def test_file_in_place_of_the_output_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(DataError, match=r"manifest\.jsonl: cannot be written"):
            Manifest(tmp_path / "out", {})


def test_translation_that_would_be_too_large_is_skipped(model: str, tmp_path: Path, capsys) -> None:
    Image.new("RGB", (20_000, 1)).save(tmp_path / "long.png")
    make_image(0).save(tmp_path / "good.png")
    command = ["translate", model, str(tmp_path), "--out", str(tmp_path / "out"), "--resize", "256"]
    assert main(command) == 3
    printed = capsys.readouterr()
    assert "long.png: 5120000×256 pixels are more than the 178,956,970 allowed" in printed.err
    assert "1 file translated" in printed.out


@pytest.mark.parametrize(("size", "expected"), [((40, 36), (22, 20)), ((30, 60), (20, 40)), ((20, 20), (20, 20))])
def test_resize_sets_the_shorter_side(size, expected, model: str, tmp_path: Path) -> None:
    make_image(0, size).save(tmp_path / "a.png")
    assert main(["translate", model, str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--resize", "20"]) == 0
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == expected
