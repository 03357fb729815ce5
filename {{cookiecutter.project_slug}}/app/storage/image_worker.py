"""The program that decodes images and encodes them again (9.S1). ``images.py`` starts it for each request and kills it.

Decoders written in C get bytes from strangers here: they may loop, take gigabytes or crash. So this runs as a process
of its own, with limits that it sets before it loads Pillow, and it imports nothing from the app.

Its argument is a job in JSON: ``limits`` (see ``images.Lane``), ``libraries`` (the folder that Pillow is in) and
``files``, the format and the size in bytes of each file in stdin. It writes the new files to stdout, one after the
other, and to stderr a line for each: its size, or the reason for a refusal, after which it stops.
Source: OWASP File Upload Cheat Sheet, "Image Rewriting"; CWE-400; setrlimit(2).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from PIL import Image

# The options of each encoder; all others are dropped. The numbers balance time against size. WebP is always written
# lossy, since lossless takes ten times as long; in an animation, key frames would encode each frame twice.
ENCODING: dict[str, dict[str, object]] = {
    "PNG": {"compress_level": 3},
    "JPEG": {"quality": 90},
    "WEBP": {"quality": 90, "method": 2},
    "GIF": {},
}
ANIMATED: dict[str, dict[str, object]] = {"PNG": {}, "WEBP": {"method": 0, "kmin": 0, "kmax": 0}, "GIF": {}}
PLUGINS = {"PNG": "PngImagePlugin", "JPEG": "JpegImagePlugin", "WEBP": "WebPImagePlugin", "GIF": "GifImagePlugin"}
NO_METADATA: dict[str, object] = {"comment": b"", "exif": b"", "xmp": b"", "icc_profile": None}


class Refused(Exception):  # noqa: N818 - not an error of this program
    """The image must not be stored. The arguments are the message for the visitor, and the setting of the limit."""


def main() -> None:
    """Do the job in ``sys.argv``."""
    job = json.loads(sys.argv[1])
    limits = job["limits"]
    _limit(**limits["process"])
    sys.path.append(job["libraries"])
    with open(0, "rb", closefd=False) as source, open(1, "wb", closefd=False) as result:
        for image_format, size in job["files"]:
            before = os.fstat(1).st_size
            try:
                _redraw(io.BytesIO(source.read(size)), image_format, result, **limits["image"])
                result.flush()
            except Refused as refused:
                _stop(*refused.args)
            except MemoryError:
                most = f"{limits['process']['memory'] // 10**6} MB"
                _stop(f"This image takes too much memory to decode: the maximum is {most}.")
            except Exception as error:  # on malicious input, decoders raise almost any exception
                _stop("This image is damaged, or too large to be decoded.", repr(error))
            print(os.fstat(1).st_size - before, file=sys.stderr, flush=True)


def _stop(reason: str, detail: str = "") -> NoReturn:
    """Report the reason to show, and the detail to log."""
    sys.exit(json.dumps([reason, detail]))


def _limit(*, memory: int, cpu: int, output: int, wall: int) -> None:
    """Let the system end this process after ``cpu`` seconds of work, and refuse it memory and disk (bytes).

    ``wall`` ends it even if the app is killed meanwhile. Windows has none of these, and macOS ignores the limit of
    memory: there, only ``images.py`` ends this process.
    """
    if os.name != "posix":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_CPU, cpu + 1),
        (resource.RLIMIT_AS, memory),
    ):
        old = resource.getrlimit(kind)[1]
        hard = most if old == resource.RLIM_INFINITY else min(most, old)
        # A second before the hard limit, SIGXCPU ends it. The SIGKILL of the hard one has other causes too.
        soft = min(cpu, hard) if kind == resource.RLIMIT_CPU else hard
        with contextlib.suppress(*[OSError, ValueError] if sys.platform == "darwin" else ()):
            resource.setrlimit(kind, (soft, hard))
    signal.alarm(wall)


def _redraw(stream: io.BytesIO, image_format: str, result: io.BufferedWriter, **bounds: int) -> None:
    """Write a new file with only the pixels: without comments, EXIF (which may have a location), XMP and profiles."""
    importlib.import_module(f"PIL.{PLUGINS[image_format]}")  # otherwise Pillow may load all of its 50
    from PIL import Image

    # It works where the checks below can't: inside decoders, before there is an image.
    Image.MAX_IMAGE_PIXELS = bounds["pixels"]
    try:
        image: Image.Image = Image.open(stream, formats=[image_format])
    except Image.DecompressionBombError:  # more than twice as many
        _bound(2 * bounds["pixels"], bounds["pixels"])
        raise
    options = ENCODING[image_format] | NO_METADATA
    if image_format in ANIMATED and getattr(image, "is_animated", False):
        options |= ANIMATED[image_format] | {"save_all": True, "duration": _durations(image, **bounds)}
        if "loop" in image.info:
            options["loop"] = image.info["loop"]
        if image_format == "GIF" and image.has_transparency_data:
            options["disposal"] = 2  # clear each frame before the next, which would otherwise be drawn over it
        image.save(result, image_format, **options)
    else:
        _bound(image.width * image.height, bounds["pixels"])
        if image_format == "WEBP":
            image = image.copy()  # without its decoder, which keeps two more images in memory
        _upright_in_srgb(image, image_format).save(result, image_format, **options)


def _bound(pixels: int, limit: int) -> None:
    if pixels > limit:
        maximum = f"{limit / 1e6:g} million"
        raise Refused(f"This image has too many pixels: the maximum is {maximum}.", "IMAGE_MAX_PIXELS")


def _durations(image: Image.Image, *, pixels: int, animation_pixels: int, frames: int) -> list[int]:
    """Decode all frames, within the limits, and return their durations in milliseconds."""
    durations: list[int] = []
    seen = 0
    while len(durations) < frames:
        _bound(image.width * image.height, pixels)
        seen += image.width * image.height
        if seen > animation_pixels:
            maximum = f"{animation_pixels / 1e6:g} million"
            raise Refused(
                f"The frames of this image have too many pixels: the maximum is {maximum}.", "IMAGE_MAX_PIXELS"
            )
        image.load()
        durations.append(image.info.get("duration", 0))
        try:
            image.seek(len(durations))
        except EOFError:
            image.seek(0)
            return durations
    raise Refused(f"This animation has too many frames: the maximum is {frames}.", "IMAGE_MAX_FRAMES")


def _upright_in_srgb(image: Image.Image, image_format: str) -> Image.Image:
    """Apply the EXIF rotation and the colour profile to the pixels, since both will be dropped."""
    from PIL import ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    profile = image.info.get("icc_profile")
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        from PIL import ImageCms

        # With an unusable profile, the numbers stay as they are.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=target)
            image = converted or image
    if image_format == "JPEG" and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return image


if __name__ == "__main__":
    main()
