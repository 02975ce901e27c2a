"""Small videos for tests and documentation."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from _helpers.small import make_image


def make_video(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    frames: int = 20,
    sound: bool = True,
    codec: str = "libx264",
    turn: int = 0,
    options: dict[str, str] | None = None,
) -> list[np.ndarray]:
    """Write a video of soft shapes at uneven times, with a tone; returns its frames."""
    images = [np.asarray(make_image(number, size)) for number in range(frames)]
    with av.open(str(path), "w", options=options or {}) as file:
        video = file.add_stream(codec, rate=25)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if turn:
            video.set_display_rotation(turn)
        tone = file.add_stream("aac" if codec == "libx264" else "libopus", rate=48000) if sound else None
        for number, pixels in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = 40 * number + (number % 3), Fraction(1, 1000)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if tone is not None:
            for block in range(30):
                wave = np.sin(np.arange(block * 1024, (block + 1) * 1024) / 20).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
                samples.rate, samples.pts, samples.time_base = 48000, block * 1024, Fraction(1, 48000)
                file.mux(tone.encode(samples))
            file.mux(tone.encode())
    return images
