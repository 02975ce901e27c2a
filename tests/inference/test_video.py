"""Videos: frames, timestamps, audio and rotation, checked with FFmpeg's libraries."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from _helpers.films import make_video
from _helpers.small import make_image
from torch import nn

import gantoolkit
from gantoolkit.errors import DataError
from gantoolkit.inference import Translator
from gantoolkit.inference.video import translate_video
from gantoolkit.recipes import cyclegan
from gantoolkit.runs import LoadedGenerator


class Negative(nn.Module):
    size_multiple = 1

    def forward(self, images: Any) -> Any:
        return -images


def negative(**changes: object) -> Translator:
    recipe = cyclegan(identity_weight=0.0).swap({f"data.{name}": value for name, value in changes.items()})
    return Translator(LoadedGenerator(Negative(), "A2B", recipe, step=0))


def read_video(path: Path) -> tuple[list[np.ndarray], list[float], bytes]:
    """Frames, their times in seconds, and the audio packets."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        times = [float(frame.pts * frame.time_base) for frame in frames]
    with av.open(str(path)) as file:
        audio = b"".join(bytes(packet) for packet in file.demux(audio=0)) if file.streams.audio else b""
    return [frame.to_ndarray(format="rgb24") for frame in frames], times, audio


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_times_and_audio(suffix: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"film{suffix}", tmp_path / "out" / f"film{suffix}"
    make_video(source)
    calls: list[tuple[int, int | None]] = []
    count = translate_video(negative(), source, target, batch_size=8, progress=lambda *call: calls.append(call))
    before, times, audio = read_video(source)
    after, new_times, new_audio = read_video(target)
    assert count == len(after) == len(before) == 20
    assert new_times == pytest.approx(times, abs=0.001)
    assert new_audio == audio != b""
    assert [done for done, _ in calls] == [8, 16, 20]
    # Chroma is subsampled and compressed.
    difference = np.mean([np.abs(255.0 - old - new).mean() for old, new in zip(before, after, strict=True)])
    assert difference < 4, difference
    assert not list(target.parent.glob(".*"))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
class TestFfmpeg:
    """Files written by ffmpeg: the translation has as many frames as ffmpeg shows, and the same duration."""

    def make(self, folder: Path, name: str, *options: str) -> Path:
        make_video(folder / "film.mp4", frames=40)
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", folder / "film.mp4", *options, folder / name], check=True)
        return folder / name

    def translate(self, path: Path) -> tuple[int, float]:
        """The number of frames, and the seconds from the first to the last one."""
        translate_video(negative(), path, path.with_name("new.mkv"))
        frames, times, _ = read_video(path.with_name("new.mkv"))
        return len(frames), times[-1] - times[0]

    def test_a_trimmed_beginning(self, tmp_path: Path) -> None:
        path = tmp_path / "trimmed.mp4"
        make_video(tmp_path / "film.mp4", frames=40)
        subprocess.run(
            ["ffmpeg", "-v", "error", "-ss", "0.5", "-i", tmp_path / "film.mp4", "-c", "copy", path], check=True
        )
        shown = len(read_video(path)[0])
        with av.open(str(path)) as file:
            assert file.streams.video[0].frames > shown, "no frame was trimmed"
        assert self.translate(path)[0] == shown

    def test_missing_and_decreasing_timestamps(self, tmp_path: Path) -> None:
        frames, seconds = self.translate(self.make(tmp_path, "film.avi", "-c:v", "copy", "-an"))
        assert frames == 40
        assert 1.2 < seconds < 2.2
        frames, seconds = self.translate(self.make(tmp_path, "raw.m4v", "-c:v", "copy", "-an", "-f", "h264"))
        assert frames == 40
        assert seconds == pytest.approx(39 / 25, abs=0.1)

    def test_all_audio_tracks_are_copied(self, tmp_path: Path) -> None:
        path = self.make(
            tmp_path, "two.mkv", "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy", "-c:a:1", "mp3"
        )
        translate_video(negative(), path, tmp_path / "new.mkv")
        with av.open(str(tmp_path / "new.mkv")) as file:
            assert [track.codec_context.name for track in file.streams.audio] == ["aac", "mp3float"]

    def test_unsupported_audio_is_named(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, "film.ogg", "-c:v", "libtheora", "-c:a", "libvorbis")
        path = path.rename(tmp_path / "film.mov")
        with pytest.raises(DataError, match=r"film\.mov: its audio \(vorbis\) cannot be copied into mov"):
            translate_video(negative(), path, tmp_path / "new.mov")

    def test_hd_videos_without_a_color_space_are_bt709(self, tmp_path: Path) -> None:
        color = "color=c=0xC83214:size=1280x720:rate=25:duration=0.1,scale=out_color_matrix=bt709,format=yuv420p"
        path = tmp_path / "red.mp4"
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            color,
            "-c:v",
            "libx264",
            "-colorspace",
            "unknown",
            path,
        ]
        subprocess.run(command, check=True)
        with av.open(str(path)) as file:
            assert int(next(file.decode(video=0)).colorspace) == 2
        translate_video(negative(), path, tmp_path / "new.mp4", size=lambda size: (64, 36))
        (frame, *_), _, _ = read_video(tmp_path / "new.mp4")
        assert np.abs(255 - frame.reshape(-1, 3).mean(axis=0) - (200, 50, 20)).max() < 4


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
def test_full_disk_raises_an_error_about_the_target(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4", frames=30)
    program = (
        f"import resource, sys; sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path\n"
        "from test_video import negative, translate_video\n"
        "translator = negative()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        f"translate_video(translator, Path({str(tmp_path / 'film.mp4')!r}), Path({str(tmp_path / 'out' / 'new.mp4')!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "UnwritableError" in done.stderr
    assert "new.mp4: cannot be written (File too large" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_interrupted_translation_leaves_no_file(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4")

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate_video(negative(), tmp_path / "film.mp4", tmp_path / "out" / "new.mp4", batch_size=2, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_format_and_color_space_of_the_output(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4")
    translate_video(negative(), tmp_path / "film.mp4", tmp_path / "new.mp4")
    with av.open(str(tmp_path / "new.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (int(context.colorspace), int(context.color_range)) == (1, 1)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotation_is_applied_as_ffmpeg_applies_it(turn: int, tmp_path: Path) -> None:
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
def test_ffprobe_reports_no_error(tmp_path: Path) -> None:
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


def test_audio_is_optional_and_other_containers_become_matroska(tmp_path: Path) -> None:
    from gantoolkit.inference.video import video_target

    make_video(tmp_path / "film.avi", sound=False, codec="mpeg4")
    target = video_target(tmp_path / "out.avi")
    assert target.suffix == ".mkv"
    assert translate_video(negative(), tmp_path / "film.avi", target) == 20
    assert read_video(target)[2] == b""


def test_odd_size_repeats_the_last_row(tmp_path: Path) -> None:
    make_video(tmp_path / "film.avi", size=(46, 35), sound=False, codec="ffv1", frames=3)
    translate_video(negative(), tmp_path / "film.avi", tmp_path / "new.mkv")
    frames, _, _ = read_video(tmp_path / "new.mkv")
    assert frames[0].shape == (36, 46, 3)


def test_frames_are_resized_and_gray_frames_stay_gray(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4")
    translator = negative(channels_A=1, channels_B=1)
    translate_video(
        translator, tmp_path / "film.mp4", tmp_path / "new.mp4", size=lambda size: (size[0] // 2, size[1] // 2)
    )
    frames, _, _ = read_video(tmp_path / "new.mp4")
    assert frames[0].shape == (24, 32, 3)
    assert np.ptp(frames[0].astype(int), axis=2).max() <= 6


class TestBadFiles:
    def error_of(self, source: Path, translator: Translator | None = None) -> str:
        target = source.with_name("new.mp4")
        with pytest.raises(DataError) as caught:
            translate_video(translator or negative(), source, target)
        assert not target.exists()
        assert not list(source.parent.glob(".*.part"))
        return str(caught.value)

    def test_not_a_video(self, tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_text("no video")
        assert "is damaged or not a readable video" in self.error_of(tmp_path / "text.mp4")
        assert "no such file" in self.error_of(tmp_path / "none.mp4")

    def test_audio_without_video(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "tone.mp4"), "w") as file:
            tone = file.add_stream("aac", rate=48000)
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.rate = 48000
            file.mux(tone.encode(samples))
            file.mux(tone.encode())
        assert "contains no video track" in self.error_of(tmp_path / "tone.mp4")

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
    def test_truncated_video(self, share: float, suffix: str, tmp_path: Path) -> None:
        options = {"movflags": "faststart"} if suffix == ".mp4" else {}
        make_video(tmp_path / f"film{suffix}", frames=100, options=options)
        content = (tmp_path / f"film{suffix}").read_bytes()
        (tmp_path / f"cut{suffix}").write_bytes(content[: int(share * len(content))])
        assert "is truncated after" in self.error_of(tmp_path / f"cut{suffix}")

    def test_truncated_index(self, tmp_path: Path) -> None:
        make_video(tmp_path / "film.mp4")
        content = (tmp_path / "film.mp4").read_bytes()
        (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
        assert "is damaged or not a readable video" in self.error_of(tmp_path / "cut.mp4")

    def test_unknown_target_format(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"new\.avi: unknown video format; use one of \.mp4, \.m4v, \.mov, \.mkv"):
            translate_video(negative(), tmp_path / "film.mp4", tmp_path / "new.avi")

    def test_generator_of_16_bit_images(self, tmp_path: Path) -> None:
        make_video(tmp_path / "film.mp4", frames=2)
        translator = negative(range_B="16-bit")
        message = "videos need a generator of 8-bit pictures; this one translates RGB, 8-bit to RGB, 16-bit"
        assert message in self.error_of(tmp_path / "film.mp4", translator)


def test_folder_with_images_and_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from _helpers.small import make_dataset, make_tiny

    from gantoolkit.cli.app import main

    run = gantoolkit.train(make_tiny(), make_dataset(tmp_path / "images"), tmp_path / "run", device="cpu", stop_at=1)
    (tmp_path / "in").mkdir()
    make_image(0).save(tmp_path / "in" / "a.png")
    make_video(tmp_path / "in" / "b.mp4", frames=5)
    (tmp_path / "in" / "c.mov").write_text("broken")
    command = ["translate", str(run.path), str(tmp_path / "in"), "--direction", "A2B", "--out", str(tmp_path / "out")]
    assert main(command) == 3
    printed = capsys.readouterr()
    assert "2 files translated" in printed.out
    assert f"skipped: {tmp_path / 'in' / 'c.mov'}: is damaged or not a readable video" in printed.err
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [line["target"] for line in lines] == ["a.png", "b.mp4", "c.mov"]
    assert len(read_video(tmp_path / "out" / "b.mp4")[0]) == 5
