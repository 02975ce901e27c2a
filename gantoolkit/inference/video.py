"""Translate videos frame by frame with PyAV (FFmpeg); timestamps, rotation and audio are preserved."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC, ENOTDIR, EPERM, EROFS
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gantoolkit.data.images import check_pixel_count
from gantoolkit.data.pixels import resize_pixels
from gantoolkit.data.writing import UnwritableError
from gantoolkit.errors import DataError, requires_extra
from gantoolkit.files.atomic import atomic_write, describe_missing_file, describe_write_error
from gantoolkit.inference.translator import Translator

__all__ = ["translate_video", "video_target"]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273
_BT709, _UNSPECIFIED, _LIMITED = 1, 2, 1
_HD = 720
_QUALITY = {"crf": "17", "preset": "medium"}
_DEFAULT_FRAME_RATE = 25
"""Frame rate of files that state none."""
_MISSING_SECONDS = 0.5
"""How much shorter than its stated duration a Matroska file may be."""
_WRITE_ERRORS = {ENOSPC, EDQUOT, EFBIG, EACCES, EPERM, EROFS, ENOTDIR, EIO}


def video_target(path: Path) -> Path:
    """The path of a video's translation: MP4, MOV and Matroska keep their suffix; other formats become Matroska."""
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
    """Translate the first video track of a file to H.264 (yuv420p, BT.709); audio is copied. The target is written atomically.

    H.264 requires even sizes: the last row or column of an odd size is repeated once. Truncated files are detected if they
    state how much they contain: MP4 and MOV with an index, and Matroska.

    Args:
        target: The file to write, with a suffix as in `video_target`.
        batch_size: Frames in memory at a time.
        size: Maps the width and height of a frame to those to which it is resized first.
        progress: Called with the number of translated frames, and the total if the file states it.

    Returns:
        The number of frames.

    Raises:
        DataError: When the file is not a video, is damaged, truncated or HDR, has audio that the target format does not
            support, or the generator does not translate 8-bit gray or RGB images.
        UnwritableError: When the translation cannot be written.
    """
    generator = translator.generator
    if not (generator.source.is_picture and generator.target.is_picture):
        raise DataError(
            f"{source}: videos need a generator of 8-bit pictures; this one translates {generator.source} "
            f"to {generator.target}"
        )
    if target.suffix.lower() not in _FORMATS:
        raise DataError(f"{target}: unknown video format; use one of {', '.join(_FORMATS)}")
    if problem := describe_missing_file(source, "a video file"):
        raise DataError(f"{source}: {problem}")
    with requires_extra("video", f"{source}: reading a video", DataError):
        import av
        from av.error import FFmpegError
    try:
        with atomic_write(target) as part, _open(source) as input:
            with av.open(str(part), "w", format=_FORMATS[target.suffix.lower()]) as output:
                translation = _Translation(translator, source, input, output, batch_size, size, progress)
                translation.run()
            translation.check_complete()
            return translation.count
    except (FFmpegError, OSError) as error:
        # FFmpeg does not say whether reading or writing failed; errors of space and permissions come from writing.
        if error.errno in _WRITE_ERRORS or not isinstance(error, FFmpegError):
            raise UnwritableError(describe_write_error(target, error)) from error
        raise DataError(f"{source}: is damaged or not a readable video ({error.strerror or error})") from error


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    import av

    with av.open(str(path)) as file:
        if not file.streams.video:
            raise DataError(f"{path}: contains no video track")
        stream = file.streams.video[0]
        if (kind := _HDR.get(int(stream.codec_context.color_trc or 0))) is not None:
            raise DataError(f"{path}: is HDR ({kind}), which is not supported; convert it to BT.709 first")
        stream.thread_type = "AUTO"
        yield file


class _Translation:
    """The translation of one open video file into another."""

    def __init__(
        self,
        translator: Translator,
        source: Path,
        input: Any,
        output: Any,
        batch_size: int,
        size: Callable[[tuple[int, int]], tuple[int, int]],
        progress: Callable[[int, int | None], None],
    ) -> None:
        self.translator, self.source, self.input, self.output = translator, source, input, output
        self.batch_size, self.size, self.progress = batch_size, size, progress
        self.video = input.streams.video[0]
        self.rate = self.video.average_rate or self.video.guessed_rate or Fraction(_DEFAULT_FRAME_RATE)
        self.audio = {track.index: self._copy_track(track) for track in input.streams.audio}
        self.stream: Any = None
        self.frames: list[Any] = []
        self.audio_packets: list[Any] = []
        """Audio packets held back until the output has its video stream; all streams must exist before the first packet."""
        self.count = self.packets = 0
        self.seconds = 0.0
        self.last_time: Fraction | None = None

    def run(self) -> None:
        for packet in self.input.demux(self.video, *self.input.streams.audio):
            if packet.size and packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self.seconds = max(self.seconds, float(end))
            if packet.stream is not self.video:
                if packet.dts is not None:  # the last packet of a track is empty
                    packet.stream = self.audio[packet.stream.index]
                    self.audio_packets.append(packet)
                self._write_audio()
                continue
            self.packets += packet.size > 0
            for frame in packet.decode():
                self.frames.append(frame)
                if len(self.frames) == self.batch_size:
                    self._translate_frames()
        self._translate_frames()
        if self.stream is None:
            raise DataError(f"{self.source}: contains no frame")
        self._write_audio()
        self.output.mux(self.stream.encode())

    def check_complete(self) -> None:
        """Compare what was read with what the file states.

        Raises:
            DataError: When the file is truncated.
        """
        kind, streams = self.input.format.name, self.input.streams
        # Packets count, not frames: those before a trimmed beginning are not shown. AVI also counts dropped frames.
        if "mp4" in kind and self.packets < self.video.frames:
            raise DataError(f"{self.source}: is truncated after {self.packets} of {self.video.frames} frames")
        knows_tracks = len(streams) == len(streams.video) + len(streams.audio)  # subtitles may be longer
        if "matroska" in kind and knows_tracks and self.input.duration:
            duration = self.input.duration / 1e6
            if self.seconds + 1 / float(self.rate) < duration - _MISSING_SECONDS:
                raise DataError(f"{self.source}: is truncated after {self.seconds:.1f} of {duration:.1f} seconds")

    def _copy_track(self, track: Any) -> Any:
        try:
            return self.output.add_stream_from_template(track)
        except ValueError as error:
            name = getattr(track.codec_context, "name", "unknown to FFmpeg")
            raise DataError(
                f"{self.source}: its audio ({name}) cannot be copied into {self.output.format.name}"
            ) from error

    def _write_audio(self) -> None:
        if self.stream is not None:
            for packet in self.audio_packets:
                self.output.mux(packet)
            self.audio_packets.clear()

    def _translate_frames(self) -> None:
        if not self.frames:
            return
        pixels = [self._read(frame) for frame in self.frames]
        for frame, values in zip(self.frames, self.translator.translate_pixels(pixels), strict=True):
            self._write(frame, values)
        self.count += len(self.frames)
        self.frames = []
        self.progress(self.count, self.video.frames or None)

    def _read(self, frame: Any) -> np.ndarray:
        from av.video.reformatter import Colorspace

        encoding = self.translator.generator.source
        # For videos that state no color space, players assume BT.709 for HD ones; FFmpeg always assumes BT.601.
        is_hd = int(frame.colorspace) == _UNSPECIFIED and min(frame.width, frame.height) >= _HD
        space = {"src_colorspace": Colorspace.ITU709} if is_hd else {}
        frame = frame.reformat(format="gray" if encoding.channels == 1 else "rgb24", **space)
        pixels = np.rot90(np.atleast_3d(frame.to_ndarray()), int(frame.rotation) // 90)
        size = (pixels.shape[1], pixels.shape[0])
        new_size = self.size(size)
        check_pixel_count(self.source, *new_size)
        return pixels if new_size == size else resize_pixels(pixels, new_size, encoding)

    def _write(self, frame: Any, values: np.ndarray) -> None:
        from av import VideoFrame
        from av.video.reformatter import ColorRange, Colorspace

        height, width = values.shape[:2]
        even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.stream is None:
            self.stream = self._add_stream(even.shape[:2], is_rotated=int(frame.rotation) % 180 == 90)
        rgb = np.ascontiguousarray(np.broadcast_to(even, (*even.shape[:2], 3)))
        translation = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        time_base = self.video.time_base
        translation.pts, translation.time_base = round(self._time_of(frame) / time_base), time_base
        self.output.mux(self.stream.encode(translation))

    def _time_of(self, frame: Any) -> Fraction:
        """A frame's time in seconds. Missing and decreasing timestamps are replaced by the next regular one."""
        time = None if frame.pts is None else frame.pts * frame.time_base
        if time is None or (self.last_time is not None and time <= self.last_time):
            time = Fraction(0) if self.last_time is None else self.last_time + 1 / self.rate
        self.last_time = time
        return time

    def _add_stream(self, shape: Sequence[int], *, is_rotated: bool) -> Any:
        stream = self.output.add_stream("libx264", rate=self.rate, options=_QUALITY)
        stream.height, stream.width = shape
        stream.pix_fmt = "yuv420p"
        if aspect_ratio := self.video.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = 1 / aspect_ratio if is_rotated else aspect_ratio
        stream.time_base = stream.codec_context.time_base = self.video.time_base
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return stream
