"""Translating videos frame by frame: times, rotation and sound are kept. PyAV, FFmpeg's libraries, reads and writes."""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gantoolkit.data.images import refuse_many_pixels
from gantoolkit.data.pixels import resize_pixels
from gantoolkit.errors import DataError, requires_extra
from gantoolkit.files.atomic import describe_absence, describe_failure, whole_file
from gantoolkit.inference.translator import Translator

__all__ = ["UnwritableError", "translate_video", "video_target"]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273
_BT709, _UNSPECIFIED, _LIMITED = 1, 2, 1
_HD = 720
_QUALITY = {"crf": "17", "preset": "medium"}
_FRAMES_A_SECOND = 25
"""Where a file does not say."""
_MISSING_SECONDS = 0.5
"""Of what a Matroska file says it lasts, what may be missing at its end."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO}


class UnwritableError(DataError):
    """The translation cannot be written, which is no fault of the file that is translated."""


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

    H.264 has no odd sizes: there the last row or column is repeated once. That a file was cut off shows where it says how
    much there should be: in MP4 and MOV with an index, and in Matroska.

    Args:
        target: The file to write, as `video_target` names it.
        batch_size: Frames that are in memory at a time.
        size: Width and height to which frames of one are resized first.
        progress: Told how many frames of how many are done; how many there are a file may not say.

    Returns:
        The number of frames.

    Raises:
        DataError: When the file is no video, is damaged, cut off or HDR, has sound that the target cannot hold, or the
            generator translates no pictures.
        UnwritableError: When the translation cannot be written.
    """
    generator = translator.generator
    if not (generator.source.is_picture and generator.target.is_picture):
        raise DataError(
            f"{source}: a video is made of pictures, and this generator translates {generator.source} to {generator.target}"
        )
    if target.suffix.lower() not in _FORMATS:
        raise DataError(f"{target}: videos are written as {', '.join(_FORMATS)}")
    if problem := describe_absence(source, "a video file"):
        raise DataError(f"{source}: {problem}")
    with requires_extra("video", f"{source}: reading a video", DataError):
        import av
        from av.error import FFmpegError
    try:
        with whole_file(target) as part, _open(source) as given:
            with av.open(str(part), "w", format=_FORMATS[target.suffix.lower()]) as made:
                translation = _Translation(translator, source, given, made, batch_size, size, progress)
                translation.run()
            translation.refuse_cut_off()
            return translation.count
    except (FFmpegError, OSError) as error:
        # FFmpeg does not say at which end something failed; what has to do with room or rights is not read but written.
        if error.errno in _NO_ROOM or not isinstance(error, FFmpegError):
            raise UnwritableError(describe_failure(target, error)) from error
        raise DataError(f"{source}: is damaged, or no video that can be read ({error.strerror or error})") from error


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
        source: Path,
        given: Any,
        made: Any,
        batch_size: int,
        size: Callable[[tuple[int, int]], tuple[int, int]],
        progress: Callable[[int, int | None], None],
    ) -> None:
        self.translator, self.source, self.given, self.made = translator, source, given, made
        self.batch_size, self.size, self.progress = batch_size, size, progress
        self.video = given.streams.video[0]
        self.rate = self.video.average_rate or self.video.guessed_rate or Fraction(_FRAMES_A_SECOND)
        self.sound = {track.index: self._copy_track(track) for track in given.streams.audio}
        self.stream: Any = None
        self.waiting: list[Any] = []
        self.early: list[Any] = []
        """Packets of sound from before the file has its video track, which it has to have when its first packet comes."""
        self.count = self.packets = 0
        self.seconds = 0.0
        self.last: Fraction | None = None

    def run(self) -> None:
        for packet in self.given.demux(self.video, *self.given.streams.audio):
            if packet.size and packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self.seconds = max(self.seconds, float(end))
            if packet.stream is not self.video:
                if packet.dts is not None:  # the last one of a track is empty
                    packet.stream = self.sound[packet.stream.index]
                    self.early.append(packet)
                self._mux_sound()
                continue
            self.packets += packet.size > 0
            for frame in packet.decode():
                self.waiting.append(frame)
                if len(self.waiting) == self.batch_size:
                    self._flush()
        self._flush()
        if self.stream is None:
            raise DataError(f"{self.source}: holds no frame")
        self._mux_sound()
        self.made.mux(self.stream.encode())

    def refuse_cut_off(self) -> None:
        """Compare what was read with what the file says it holds.

        Raises:
            DataError: When that is less.
        """
        kind, streams = self.given.format.name, self.given.streams
        # Frames before a trimmed beginning are read, and not shown; AVI counts frames that were left out.
        if "mp4" in kind and self.packets < self.video.frames:
            raise DataError(f"{self.source}: is cut off: it has {self.packets} of its {self.video.frames} frames")
        knows_tracks = len(streams) == len(streams.video) + len(streams.audio)  # subtitles may go on for longer
        if "matroska" in kind and knows_tracks and self.given.duration:
            said = self.given.duration / 1e6
            if self.seconds + 1 / float(self.rate) < said - _MISSING_SECONDS:
                raise DataError(f"{self.source}: is cut off: it has {self.seconds:.1f} of its {said:.1f} seconds")

    def _copy_track(self, track: Any) -> Any:
        try:
            return self.made.add_stream_from_template(track)
        except ValueError as error:
            name = getattr(track.codec_context, "name", "of a kind that FFmpeg does not know")
            raise DataError(
                f"{self.source}: its sound ({name}) cannot be copied into {self.made.format.name}"
            ) from error

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
        from av.video.reformatter import Colorspace

        encoding = self.translator.generator.source
        # Players take large videos that do not say it for BT.709, and FFmpeg all of them for BT.601.
        is_hd = int(frame.colorspace) == _UNSPECIFIED and min(frame.width, frame.height) >= _HD
        space = {"src_colorspace": Colorspace.ITU709} if is_hd else {}
        frame = frame.reformat(format="gray" if encoding.channels == 1 else "rgb24", **space)
        pixels = np.rot90(np.atleast_3d(frame.to_ndarray()), int(frame.rotation) // 90)
        wanted = self.size((pixels.shape[1], pixels.shape[0]))
        refuse_many_pixels(self.source, *wanted)
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
        made.pts, made.time_base = round(self._time_of(frame) / self.video.time_base), self.video.time_base
        self.made.mux(self.stream.encode(made))

    def _time_of(self, frame: Any) -> Fraction:
        """When a frame is shown, in seconds; one that does not say it, or goes back, comes after the one before."""
        said = None if frame.pts is None else frame.pts * frame.time_base
        if said is None or (self.last is not None and said <= self.last):
            said = Fraction(0) if self.last is None else self.last + 1 / self.rate
        self.last = said
        return said

    def _add_stream(self, shape: Sequence[int], *, is_turned: bool) -> Any:
        stream = self.made.add_stream("libx264", rate=self.rate, options=_QUALITY)
        stream.height, stream.width = shape
        stream.pix_fmt = "yuv420p"
        if shape_of_pixels := self.video.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = 1 / shape_of_pixels if is_turned else shape_of_pixels
        stream.time_base = stream.codec_context.time_base = self.video.time_base
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return stream
