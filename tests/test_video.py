"""Videos: frames, times, sound and rotation, checked with FFmpeg's own libraries."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from films import make_video
from small import make_image
from torch import nn

from gantoolkit.errors import DataError
from gantoolkit.inference import Translator
from gantoolkit.inference.video import translate_video
from gantoolkit.recipes import cyclegan
from gantoolkit.training import LoadedGenerator


class Negative(nn.Module):
    size_multiple = 1

    def forward(self, images: Any) -> Any:
        return -images


def negative(**changes: object) -> Translator:
    recipe = cyclegan(identity_weight=0.0).swap({f"data.{name}": value for name, value in changes.items()})
    return Translator(LoadedGenerator(Negative(), "A2B", recipe, step=0))


def read_video(path: Path) -> tuple[list[np.ndarray], list[float], bytes]:
    """Frames, their times in seconds, and the packets of the sound."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        times = [float(frame.pts * frame.time_base) for frame in frames]
    with av.open(str(path)) as file:
        sound = b"".join(bytes(packet) for packet in file.demux(audio=0)) if file.streams.audio else b""
    return [frame.to_ndarray(format="rgb24") for frame in frames], times, sound


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
def test_frames_times_and_sound(ending: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"film{ending}", tmp_path / "out" / f"film{ending}"
    make_video(source)
    told: list[tuple[int, int | None]] = []
    count = translate_video(negative(), source, target, batch_size=8, progress=lambda *what: told.append(what))
    before, times, sound = read_video(source)
    after, new_times, new_sound = read_video(target)
    assert count == len(after) == len(before) == 20
    assert new_times == pytest.approx(times, abs=0.001)
    assert new_sound == sound != b""
    assert [done for done, _ in told] == [8, 16, 20]
    # Colours are halved in size and compressed on the way.
    difference = np.mean([np.abs(255.0 - old - new).mean() for old, new in zip(before, after, strict=True)])
    assert difference < 4, difference
    assert not list(target.parent.glob(".*"))


def test_what_is_written_says_what_it_is(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4")
    translate_video(negative(), tmp_path / "film.mp4", tmp_path / "new.mp4")
    with av.open(str(tmp_path / "new.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (int(context.colorspace), int(context.color_range)) == (1, 1)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_video_is_turned_upright_as_ffmpeg_turns_it(turn: int, tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4", turn=turn, frames=3)
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert next(file.decode(video=0)).rotation % 360 == turn % 360
    translate_video(negative(), tmp_path / "film.mp4", tmp_path / "new.mp4")
    (frame, *_), _, _ = read_video(tmp_path / "new.mp4")
    (as_stored, *_), _, _ = read_video(tmp_path / "film.mp4")
    assert np.abs(255.0 - np.rot90(as_stored, turn // 90) - frame).mean() < 4
    with av.open(str(tmp_path / "new.mp4")) as file:
        assert next(file.decode(video=0)).rotation == 0


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffmpeg is not installed")
def test_ffprobe_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4")
    translate_video(negative(), tmp_path / "film.mp4", tmp_path / "new.mp4")
    shown = "stream=codec_name,pix_fmt,color_space,color_range,nb_read_frames"
    command = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        shown,
        "-of",
        "json",
        str(tmp_path / "new.mp4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    streams = {stream["codec_name"]: stream for stream in json.loads(done.stdout)["streams"]}
    assert streams.keys() == {"h264", "aac"}
    video = streams["h264"]
    assert (video["pix_fmt"], video["color_space"], video["color_range"]) == ("yuv420p", "bt709", "tv")
    assert video["nb_read_frames"] == "20"


def test_sound_is_optional_and_other_containers_become_matroska(tmp_path: Path) -> None:
    from gantoolkit.inference.video import video_target

    make_video(tmp_path / "film.avi", sound=False, codec="mpeg4")
    target = video_target(tmp_path / "out.avi")
    assert target.suffix == ".mkv"
    assert translate_video(negative(), tmp_path / "film.avi", target) == 20
    assert read_video(target)[2] == b""


def test_an_odd_size_repeats_its_last_line(tmp_path: Path) -> None:
    make_video(tmp_path / "film.avi", size=(46, 35), sound=False, codec="ffv1", frames=3)
    translate_video(negative(), tmp_path / "film.avi", tmp_path / "new.mkv")
    frames, _, _ = read_video(tmp_path / "new.mkv")
    assert frames[0].shape == (36, 46, 3)


def test_frames_are_resized_and_grey_ones_stay_grey(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4")
    translator = negative(channels_A=1, channels_B=1)
    translate_video(
        translator, tmp_path / "film.mp4", tmp_path / "new.mp4", size=lambda size: (size[0] // 2, size[1] // 2)
    )
    frames, _, _ = read_video(tmp_path / "new.mp4")
    assert frames[0].shape == (24, 32, 3)
    assert np.ptp(frames[0].astype(int), axis=2).max() <= 6


class TestBadFiles:
    def refused(self, source: Path, translator: Translator | None = None) -> str:
        target = source.with_name("new.mp4")
        with pytest.raises(DataError) as caught:
            translate_video(translator or negative(), source, target)
        assert not target.exists()
        assert not list(source.parent.glob(".*.part"))
        return str(caught.value)

    def test_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_text("no video")
        assert "is damaged, or no video that can be read" in self.refused(tmp_path / "text.mp4")
        assert "no such file" in self.refused(tmp_path / "none.mp4")

    def test_sound_alone(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "tone.mp4"), "w") as file:
            tone = file.add_stream("aac", rate=48000)
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.rate = 48000
            file.mux(tone.encode(samples))
            file.mux(tone.encode())
        assert "holds no video" in self.refused(tmp_path / "tone.mp4")

    @pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
    def test_one_that_is_cut_off(self, share: float, tmp_path: Path) -> None:
        make_video(tmp_path / "film.mp4", frames=60)
        content = (tmp_path / "film.mp4").read_bytes()
        (tmp_path / "cut.mp4").write_bytes(content[: int(share * len(content))])
        assert "is damaged" in (said := self.refused(tmp_path / "cut.mp4")) or "is cut off" in said

    def test_a_generator_of_other_images(self, tmp_path: Path) -> None:
        make_video(tmp_path / "film.mp4", frames=2)
        translator = negative(range_B="16-bit")
        assert "a video is made of pictures, and this generator translates RGB, 8-bit to RGB, 16-bit" in self.refused(
            tmp_path / "film.mp4", translator
        )


def test_a_folder_with_images_and_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small import make_dataset, make_tiny

    from gantoolkit.cli.app import main

    run = make_tiny().train(make_dataset(tmp_path / "images"), tmp_path / "run", device="cpu", stop_at=1)
    (tmp_path / "in").mkdir()
    make_image(0).save(tmp_path / "in" / "a.png")
    make_video(tmp_path / "in" / "b.mp4", frames=5)
    (tmp_path / "in" / "c.mov").write_text("broken")
    command = ["translate", str(run.path), str(tmp_path / "in"), "--direction", "A2B", "--out", str(tmp_path / "out")]
    assert main(command) == 3
    said = capsys.readouterr()
    assert "2 files translated" in said.out
    assert f"skipped: {tmp_path / 'in' / 'c.mov'}: is damaged, or no video" in said.err
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [line["target"] for line in lines] == ["a.png", "b.mp4", "c.mov"]
    assert len(read_video(tmp_path / "out" / "b.mp4")[0]) == 5
