"""Small files that are much work: what an attacker sends to keep a decoder busy, or to fill the memory.

``python -m tests.hostile_images`` uploads each, and the largest images that people have, and prints what it cost.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageChops

from tests.samples import TYPES, encode

SIDE = 5000  # squared, this is the largest number of pixels that the app takes


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _huffman(symbol: int, *, dc: bool) -> bytes:
    """A table with one symbol, whose code is the bit 0."""
    return _segment(0xC4, bytes([0 if dc else 0x10, 1, *[0] * 15, symbol]))


def jpeg_of(scans: list[bytes], frame: int = 0xC2, side: int = SIDE, components: int = 1, more: bytes = b"") -> bytes:
    """A JPEG whose scans follow its tables. ``frame`` is the marker of its process, 0xC2 for a progressive one."""
    table = _segment(0xDB, bytes([0, *[1] * 64]))
    each = b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    header = _segment(frame, struct.pack(">BHHB", 8, side, side, components) + each)
    return b"\xff\xd8" + table + header + more + b"".join(scans) + b"\xff\xd9"


def scan(first: int, last: int, high: int, low: int, data: bytes = b"", component: int = 1) -> bytes:
    """A scan of the coefficients ``first`` to ``last``, with the bits between ``high`` and ``low``."""
    return _segment(0xDA, bytes([1, component, 0, first, last, high << 4 | low])) + data


# Runs of 27,306 blocks without a coefficient, as many as an image of SIDE has; no byte of it is 0xFF.
NOTHING = int(("0" + "10" * 7) * 15 + "0" * 7, 2).to_bytes(29)
AC, DC = _huffman(0xE0, dc=False), _huffman(0, dc=True)


def refining(components: int) -> list[bytes]:
    """All scans that a progressive JPEG may have, in a valid order: one for each bit of each coefficient."""
    found = []
    for component in range(1, components + 1):
        found.append(scan(0, 0, 0, 0, component=component))
        for coefficient in range(1, 64):
            found.append(scan(coefficient, coefficient, 0, 13, NOTHING, component))
            found += [scan(coefficient, coefficient, low + 1, low, NOTHING, component) for low in range(12, -1, -1)]
    return found


def with_segments(number: int, data: bytes) -> bytes:
    """A small JPEG with a number of APP1 segments."""
    image = encode(Image.new("RGB", (16, 16)), "jpg")
    return image[:2] + _segment(0xE1, data) * number + image[2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int = 8, colour: int = 6, before: bytes = b"", interlaced: int = 0) -> bytes:
    """A PNG of one colour, with more chunks before its pixels."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(9)
    row = b"\0" * (width * channels * depth // 8 + 2)
    # The passes of an interlaced image have twice as many rows, some of them shorter: zeros are right for all.
    pixels = b"".join(packer.compress(row) for _ in range(height * (1 + interlaced))) + packer.flush()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + before + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def apng_of(frames: int) -> bytes:
    """A PNG of one pixel that announces an animation of frames of one pixel."""
    control = png_chunk(b"acTL", struct.pack(">II", frames, 0))
    head = png_of(1, 1, before=control)[:-12]
    one = zlib.compress(b"\0" * 5)
    made = []
    for number in range(frames):
        made.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * number, 1, 1, 0, 0, 1, 100, 0, 0)))
        made.append(png_chunk(b"fdAT", struct.pack(">I", 2 * number + 1) + one))
    return head + b"".join(made) + png_chunk(b"IEND", b"")


def gif_of(width: int, height: int, frames: int) -> bytes:
    """A GIF that repeats a frame of one pixel on a canvas."""
    frame = b"!\xf9\4\0\1\0\0\0\x2c\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def webp_of(width: int, height: int, frames: int = 2) -> bytes:
    """An animated WebP of frames of a few pixels, whose header announces another canvas."""
    steps = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in range(0, 10 * frames, 10)]
    data = bytearray(encode(steps[0], "webp", save_all=True, append_images=steps[1:], lossless=True))
    data[24:27], data[27:30] = (width - 1).to_bytes(3, "little"), (height - 1).to_bytes(3, "little")
    return bytes(data)


def exif_loop() -> bytes:
    """EXIF whose directory is its own sub-directory and its own successor, for both kinds of them."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x8825, 4, 1, 8)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entry + struct.pack("<I", 8)


def counted(scans: int) -> bytes:
    """A valid progressive JPEG of as many scans."""
    return jpeg_of(refining(1)[:scans], more=AC + DC)


# Name → how to make it. The ending says what it is sent as.
HOSTILE: dict[str, Callable[[], bytes]] = {
    # Those of the report that led to image_worker.py.
    "30,000 scans.jpg": lambda: jpeg_of([scan(1, 63, 0, 0, NOTHING)] * 30_000, more=AC + DC),
    "2,649 valid scans.jpg": lambda: jpeg_of(refining(3), components=3, more=AC + DC),
    "480,000 EXIF segments.jpg": lambda: with_segments(480_000, b"Exif\0\0" + b"a" * 4),
    "starts.jpg": lambda: b"\xff\xd8" * 5000,
    "two large frames.gif": lambda: gif_of(SIDE, SIDE, 2),
    "two large frames.webp": lambda: webp_of(SIDE, SIDE),
    # At the edge of the bounds on structure, so that only the process bounds them.
    "100 scans.jpg": lambda: counted(100),
    "490 large EXIF segments.jpg": lambda: with_segments(490, b"Exif\0\0" + b"a" * 20_000),
    "100 arithmetic scans.jpg": lambda: jpeg_of(refining(3)[:100], 0xCA, components=3),
    "arithmetic.jpg": lambda: jpeg_of([scan(0, 63, 0, 0)], 0xC9),
    "restart markers.jpg": lambda: jpeg_of(
        [scan(0, 63, 0, 0, b"".join(b"\0\xff%c" % (0xD0 + n % 8) for n in range(390_625)))],
        0xC0,
        more=_huffman(0, dc=False) + DC + _segment(0xDD, b"\0\1"),
    ),
    "no pixels in 65,500 rows.jpg": lambda: jpeg_of([scan(0, 0, 0, 0)], more=DC).replace(
        struct.pack(">HH", SIDE, SIDE), struct.pack(">HH", 65_500, 380)
    ),
    "cut in its scans.jpg": lambda: jpeg_of(refining(1)[:90], more=AC + DC)[:-400],
    "EXIF that loops.jpg": lambda: with_segments(1, exif_loop()),
    "four progressive channels.jpg": lambda: jpeg_of(
        [scan(0, 0, 0, 0, component=n) for n in range(1, 5)], components=4, more=DC
    ),
    "800,000 chunks.png": lambda: png_of(1, 1, before=png_chunk(b"teSt", b"") * 800_000),
    "100,000 frames.png": lambda: apng_of(100_000),
    "large texts.png": lambda: png_of(1, 1, before=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 2**20, 9)) * 60),
    "large profile.png": lambda: png_of(1, 1, before=png_chunk(b"iCCP", b"a\0\0" + zlib.compress(b"a" * 2**20, 9))),
    "16 bits a channel.png": lambda: png_of(SIDE, SIDE, 16),
    "interlaced.png": lambda: png_of(SIDE, SIDE, interlaced=1),
    "60,000 frames.gif": lambda: gif_of(1, 1, 60_000),
    "999 frames.gif": lambda: gif_of(220, 220, 999),
    "huge canvas.gif": lambda: gif_of(65_535, 65_535, 1),
    "huge canvas.webp": lambda: webp_of(16_383, 16_383),
    "one large frame.webp": lambda: encode(Image.new("RGBA", (SIDE, SIDE)), "webp", lossless=True, method=0, quality=0),
}


def _clouds(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture of soft shapes with a little noise, as photos have."""
    bands = []
    for number in range(len(Image.new(mode, (1, 1)).getbands())):
        soft = Image.radial_gradient("L").rotate(90 * number).resize((width, height))
        grain = Image.linear_gradient("L").resize((width // 50, height // 70)).resize((width, height), 0)
        bands.append(ImageChops.add(soft, grain, 2))
    return Image.merge(mode, bands)


def _moving(ending: str, frames: int, side: int) -> bytes:
    scene = _clouds(side, side).quantize() if ending == "gif" else _clouds(side, side)
    steps = [ImageChops.offset(scene, 9 * number) for number in range(8)]
    return encode(
        steps[0], ending, save_all=True, append_images=[steps[number % 8] for number in range(1, frames)], duration=50
    )


def _photo() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    return encode(_clouds(SIDE, SIDE), "jpg", progressive=True, subsampling=0, quality=85, exif=exif)


# The largest and slowest of what people send: it must be accepted.
LARGEST: dict[str, Callable[[], bytes]] = {
    "progressive photo of 25 megapixels.jpg": _photo,
    "print of 25 megapixels.jpg": lambda: encode(_clouds(SIDE, SIDE, "CMYK"), "jpg", progressive=True),
    "transparent drawing of 25 megapixels.png": lambda: encode(_clouds(SIDE, SIDE, "RGBA"), "png", compress_level=1),
    "photo of 16 megapixels.webp": lambda: encode(_clouds(4600, 3500), "webp", quality=80, method=0),
    "transparent photo of 6 megapixels.webp": lambda: encode(_clouds(3000, 2000, "RGBA"), "webp", method=0),
    "50 frames of a megapixel.webp": lambda: _moving("webp", 50, 1000),
    "30 frames of a megapixel.gif": lambda: _moving("gif", 30, 1000),
    "400 frames of 100 by 100.gif": lambda: _moving("gif", 400, 100),
}


def children(parent: int) -> list[int]:
    """The processes that a process has started and that have not ended. It works on Linux only."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@contextlib.contextmanager
def worker_memory(parent: int) -> Iterator[list[int]]:
    """Return the most bytes of memory that a program of ``parent`` has had, as they grow until the end of the block."""
    peaks, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            for child in children(parent):
                with contextlib.suppress(OSError):  # it has ended
                    # Until it has started its program, a child is a copy of its parent.
                    if b"image_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                        status = Path(f"/proc/{child}/status").read_text()
                        peaks.extend(int(kilobytes) * 1024 for kilobytes in re.findall(r"VmHWM:\s+(\d+)", status))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def _upload(name: str, content: bytes) -> tuple[str, float, float, float]:
    """Upload in this process: the answer, the seconds until then, the worker's CPU seconds and most memory in MB."""
    import resource

    from werkzeug.datastructures import FileStorage

    from app import create_app
    from app.security import uploads
    from app.security.errors import Refusal

    with TemporaryDirectory() as folder:
        app = create_app({"SECRET_KEY": os.urandom(32).hex(), "UPLOAD_DIR": folder})
        file = FileStorage(io.BytesIO(content), name, content_type=TYPES[name.rpartition(".")[2]])
        with app.test_request_context(), worker_memory(os.getpid()) as peaks:
            start = time.monotonic()
            try:
                uploads.save(file, uploads.new_session_owner())
                answer = "accepted"
            except Refusal as refusal:
                answer = f"{refusal.code}: {refusal.message}"
            took = time.monotonic() - start
    worked = resource.getrusage(resource.RUSAGE_CHILDREN)
    return answer, took, worked.ru_utime + worked.ru_stime, max(peaks) / 1e6


def main() -> None:
    """Print a table."""
    print("| image | sent | answer | seconds | CPU seconds | memory |\n|---|---:|---|---:|---:|---:|")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, make in {**HOSTILE, **LARGEST}.items():
            content = make()
            answer, took, cpu, memory = pool.submit(_upload, name, content).result()
            size = f"{len(content) / 1000:,.1f} kB"
            print(f"| {name} | {size} | {answer} | {took:.1f} | {cpu:.1f} | {memory:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
