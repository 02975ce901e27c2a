"""Translating videos frame by frame: times, rotation and sound are kept. PyAV, FFmpeg's libraries, reads and writes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gantoolkit.data.pixels import resize_pixels
from gantoolkit.errors import DataError
from gantoolkit.files import describe_absence, describe_failure, whole_file
from gantoolkit.inference.translator import Translator

__all__ = ["translate_video", "video_target"]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273
_BT709, _LIMITED = 1, 1
_QUALITY = {"crf": "17", "preset": "medium"}


def video_target(path: Path) -> Path:
    """The name of a video's translation: MP4, MOV and Matroska stay what they are, everything else becomes Matroska."""
    return path if path.suffix.lower() in _FORMATS else path.with_suffix(".mkv")


def translate_video(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    batch_size: int = 8,
    size: Callable[[tuple[int, int]], tuple[int, int]] = lambda size: size,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> int:
    """Translate the first video track of a file as H.264 (yuv420p, BT.709), whole or not at all; sound is copied as it is.

    H.264 has no odd sizes: there the last row or column is repeated once.

    Args:
        batch_size: Frames that are in memory at a time.
        size: Width and height to which frames of one are resized first.
        progress: Told how many frames of how many are done; how many there are a file may not say.

    Returns:
        The number of frames.

    Raises:
        DataError: When the file is no video, is damaged, cut off or HDR, or the generator translates no pictures.
    """
    generator = translator.generator
    if not (generator.source.is_picture and generator.target.is_picture):
        raise DataError(
            f"{source}: a video is made of pictures, and this generator translates {generator.source} to {generator.target}"
        )
    if problem := describe_absence(source, "a video file"):
        raise DataError(f"{source}: {problem}")
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise DataError(f"{source}: videos need the extra `video`: pip install gantoolkit[video]") from error
    try:
        with whole_file(target) as part, _open(source) as given:
            with av.open(str(part), "w", format=_FORMATS[target.suffix.lower()]) as made:
                count = _Translation(translator, given, made, batch_size, size, progress).run()
            # Only these have an index of what was there; AVI counts frames that were left out.
            expected = given.streams.video[0].frames if "mp4" in given.format.name else 0
            if expected and count < expected:
                raise DataError(f"{source}: is cut off: {count} of its {expected} frames can be read")
            return count
    except FFmpegError as error:
        raise DataError(f"{source}: is damaged, or no video that can be read ({error.strerror or error})") from error
    except OSError as error:
        raise DataError(describe_failure(target, error)) from error


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    import av

    with av.open(str(path)) as file:
        if not file.streams.video:
            raise DataError(f"{path}: holds no video")
        stream = file.streams.video[0]
        if (kind := _HDR.get(int(stream.codec_context.color_trc or 0))) is not None:
            raise DataError(f"{path}: is HDR ({kind}), whose values are no 8-bit levels; convert it to BT.709 first")
        stream.thread_type = "AUTO"
        yield file


class _Translation:
    """One video on its way from an open file into another."""

    def __init__(
        self,
        translator: Translator,
        given: Any,
        made: Any,
        batch_size: int,
        size: Callable[[tuple[int, int]], tuple[int, int]],
        progress: Callable[[int, int | None], None],
    ) -> None:
        self.translator, self.given, self.made = translator, given, made
        self.batch_size, self.size, self.progress = batch_size, size, progress
        self.video = given.streams.video[0]
        self.sound = {track.index: made.add_stream_from_template(track) for track in given.streams.audio}
        self.stream: Any = None
        self.waiting: list[Any] = []
        self.early: list[Any] = []
        """Packets of sound from before the file has its video track, which it has to have when its first packet comes."""
        self.count = 0

    def run(self) -> int:
        for packet in self.given.demux(self.video, *self.given.streams.audio):
            if packet.stream is not self.video:
                if packet.dts is not None:  # the last one of a track is empty
                    packet.stream = self.sound[packet.stream.index]
                    self.early.append(packet)
                self._mux_sound()
                continue
            for frame in packet.decode():
                self.waiting.append(frame)
                if len(self.waiting) == self.batch_size:
                    self._flush()
        self._flush()
        if self.stream is None:
            raise DataError(f"{self.given.name}: holds no frame")
        self._mux_sound()
        self.made.mux(self.stream.encode())
        return self.count

    def _mux_sound(self) -> None:
        if self.stream is not None:
            for packet in self.early:
                self.made.mux(packet)
            self.early.clear()

    def _flush(self) -> None:
        if not self.waiting:
            return
        pixels = [self._read(frame) for frame in self.waiting]
        for frame, values in zip(self.waiting, self.translator.translate_pixels(pixels), strict=True):
            self._write(frame, values)
        self.count += len(self.waiting)
        self.waiting = []
        self.progress(self.count, self.video.frames or None)

    def _read(self, frame: Any) -> np.ndarray:
        encoding = self.translator.generator.source
        pixels = np.atleast_3d(frame.to_ndarray(format="gray" if encoding.channels == 1 else "rgb24"))
        pixels = np.rot90(pixels, int(frame.rotation) // 90)
        wanted = self.size((pixels.shape[1], pixels.shape[0]))
        return pixels if wanted == (pixels.shape[1], pixels.shape[0]) else resize_pixels(pixels, wanted, encoding)

    def _write(self, frame: Any, values: np.ndarray) -> None:
        from av import VideoFrame
        from av.video.reformatter import ColorRange, Colorspace

        height, width = values.shape[:2]
        even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.stream is None:
            self.stream = self._add_stream(even.shape[:2], is_turned=int(frame.rotation) % 180 == 90)
        made = VideoFrame.from_ndarray(
            np.ascontiguousarray(np.broadcast_to(even, (*even.shape[:2], 3))), format="rgb24"
        )
        made = made.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        made.pts, made.time_base = frame.pts, frame.time_base
        self.made.mux(self.stream.encode(made))

    def _add_stream(self, shape: Sequence[int], *, is_turned: bool) -> Any:
        stream = self.made.add_stream("libx264", rate=self.video.average_rate or 25, options=_QUALITY)
        stream.height, stream.width = shape
        stream.pix_fmt = "yuv420p"
        if shape_of_pixels := self.video.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = 1 / shape_of_pixels if is_turned else shape_of_pixels
        stream.time_base = stream.codec_context.time_base = self.video.time_base
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return stream
