"""Images are encoded again, so that only their pixels are kept (9.S1), in a process with limits (9.T4).

Pillow bounds pixels, not work: 80 kB can keep a decoder busy for minutes, or take a gigabyte. Here a request's images
go to ``image_worker.py``, a program that the system stops at a limit of CPU time and memory, and this module at one of
time. ``turns.py`` bounds how many of these processes there are: one in each lane.

Whatever is uploaded, waiting and decoding end within 15 seconds, and all images together take less than 400 MB.
With a larger ``IMAGE_MAX_PIXELS`` than the default they may take more, in proportion.
Source: OWASP File Upload Cheat Sheet; ASVS 5.0 V5.2.6; CWE-400.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess  # nosec B404
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NoReturn

from flask import current_app

from app.security.errors import refuse
from app.storage import folder, image_headers
from app.storage.turns import turn

# All frames of an animation together may have this many times the pixels of one image.
ANIMATION = 2


@dataclass(frozen=True)
class Lane:
    """The limits of one process, and how many requests may wait for it or be in it.

    ``memory`` is the size of the address space in bytes, of which Python and Pillow take 28 MB. ``cpu`` is in seconds.
    """

    name: str
    memory: int
    cpu: int
    places: int


# So that a large image doesn't stop everybody's small ones, those have a lane of their own. The slowest image of 25
# megapixels takes 6 seconds on a machine of 2024. JPEG takes up to 12 bytes a pixel, PNG 10, GIF 5 for each frame and
# 30 for the canvas, WebP 16 (with transparency 48): an image that takes more than this is refused.
LARGE = Lane("large", memory=338_000_000, cpu=12, places=3)
LARGE_PIXELS = 25_000_000  # the IMAGE_MAX_PIXELS for which this memory is enough; for more, it grows in proportion
SMALL = Lane("small", memory=60_000_000, cpu=3, places=8)
# What fits into SMALL, by the size of the file and the number of pixels.
SMALL_BYTES = 28_000_000
BYTES_PER_BYTE = 3
BYTES_PER_PIXEL = {"JPEG": 12, "PNG": 12, "WEBP": 48}

ANSWER_SECONDS = 14.0
# The part of them that is left for the image when it has waited longest.
WORK_SECONDS = 2.0
# Of all images of a request. The files of the two lanes fit into the disk space that uploads leave free.
MAX_OUTPUT_BYTES = 100 * 2**20

WORKER = Path(__file__).with_name("image_worker.py")
CHUNK = 64 * 1024
REPORT_BYTES = 64 * 1024
_SIZE = re.compile("[0-9]{1,12}")
# Its environment has no secret: only what systems need to start a program. It is no sandbox: it runs as the same user.
NEEDED = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
ENVIRONMENT = {name: os.environ[name] for name in NEEDED if name in os.environ}

log = logging.getLogger(__name__)


def redraw(files: Sequence[tuple[IO[bytes], str]], owner: str, address: str) -> Iterator[IO[bytes]]:
    """Yield a new file for each image, given as a stream and the name of its format (``PNG``).

    The images of one request go through one process. Raises Refusal: 422 if the one whose turn it is to be yielded is
    damaged or takes too much, 503 if the machine is busy.
    """
    end = time.monotonic() + ANSWER_SECONDS
    lane = _lane(files)
    # Files, since pipes could block: none of the two processes waits for the other one to read.
    with folder.temporary() as source, folder.temporary() as result, folder.temporary() as report:
        with turn(
            lane.name,
            lane.places,
            owner=owner,
            address=address,
            wait=ANSWER_SECONDS - WORK_SECONDS,
            hold=ANSWER_SECONDS,
        ):
            parts = [(image_format, _append(stream, source)) for stream, image_format in files]
            status = _run(lane, parts, end, source, result, report)
        report.seek(0)
        lines = report.read(REPORT_BYTES).decode(errors="replace").splitlines()
        result.seek(0)
        done = [*itertools.takewhile(_SIZE.fullmatch, lines)][: len(files)]
        for size in done:
            with folder.temporary() as image:
                _copy(result, image, int(size))
                yield image
    if len(done) < len(files):
        _refuse(status, lines[len(done) :], lane)


def _lane(files: Sequence[tuple[IO[bytes], str]]) -> Lane:
    """Return the lane for these files. Raises Refusal (422) if a header announces more work than an image can need."""
    needed = 0
    for stream, image_format in files:
        pixels = image_headers.still_pixels(stream, image_format)
        if pixels is None:
            needed += SMALL_BYTES + 1
        else:
            needed += stream.seek(0, os.SEEK_END) * BYTES_PER_BYTE + pixels * BYTES_PER_PIXEL[image_format]
    if needed <= SMALL_BYTES:
        return SMALL
    times = max(current_app.config["IMAGE_MAX_PIXELS"] / LARGE_PIXELS, 1)
    return replace(LARGE, memory=round(LARGE.memory * times))


def _append(stream: IO[bytes], target: IO[bytes]) -> int:
    stream.seek(0)
    before = target.tell()
    shutil.copyfileobj(stream, target)
    return target.tell() - before


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size and (chunk := source.read(min(size, CHUNK))):
        target.write(chunk)
        size -= len(chunk)


def _run(
    lane: Lane, files: list[tuple[str, int]], end: float, source: IO[bytes], result: IO[bytes], report: IO[bytes]
) -> int | None:
    """Run the worker until ``end``, at least for ``WORK_SECONDS``. Return its exit status, None if it took longer."""
    deadline = max(end, time.monotonic() + WORK_SECONDS)
    pillow = importlib.util.find_spec("PIL")
    seconds = int(deadline - time.monotonic())
    process = {"memory": lane.memory, "cpu": lane.cpu, "output": MAX_OUTPUT_BYTES, "wall": seconds + 2}
    pixels, frames = current_app.config["IMAGE_MAX_PIXELS"], current_app.config["IMAGE_MAX_FRAMES"]
    image = {"pixels": pixels, "animation_pixels": ANIMATION * pixels, "frames": frames}
    job = {
        "limits": {"process": process, "image": image},
        "libraries": str(Path(str(pillow and pillow.origin)).parent.parent),
        "files": files,
    }
    # -I and -S: nothing of the environment or of installed packages runs before the limits are set.
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(WORKER), json.dumps(job)]
    source.seek(0)
    # The noqa and nosec: no shell, and no part of the command comes from a request but numbers.
    with subprocess.Popen(  # noqa: S603 # nosec B603
        command, stdin=source, stdout=result, stderr=report, env=ENVIRONMENT
    ) as worker:
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return worker.wait(min(left, 0.01))  # a longer one would look for the end only every 50 ms
        worker.kill()
    return None


def _refuse(status: int | None, report: list[str], lane: Lane) -> NoReturn:
    """Refuse the image at which the worker stopped. ``report`` is what it said about it."""
    if status is None or status == -getattr(signal, "SIGALRM", 0):
        log.warning("image refused: not done in time")
        refuse(503, "There was no time to check this image. Please try again in a moment.", retry_after=30)
    if status == -getattr(signal, "SIGXCPU", 0):
        log.warning("image refused: it takes too much work")
        refuse(422, f"This image takes too much work to check: the maximum is {lane.cpu} seconds.")
    if status < 0:
        log.warning("image refused: the decoder ended with signal %s", -status)
        refuse(422, "This image is damaged, or too large to be decoded.")
    try:
        reason, detail = json.loads(report[-1])
    except (ValueError, IndexError):
        log.error("images can't be processed: %s", report[-3:])
        refuse(503, "Images can't be processed at the moment.", retry_after=60)
    log.info("image refused: %s %s", reason, detail)
    is_setting = current_app.debug and detail in current_app.config
    refuse(422, f"{reason} (Debug: the limit is {detail}.)" if is_setting else str(reason))
