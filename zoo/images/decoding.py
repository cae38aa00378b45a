"""One image from its stored form to the pixels of a network's input: decode, convert, resize, crop.

Conversions, so that an image looks as a viewer shows it: EXIF rotation applied; transparency laid on white;
CMYK and palettes to RGB; the first frame of an animation. Grays of 12 or 16 bits, of 32-bit integers (0 to 65535) and
of floats (0 to 1) reach a network as they are; what is shown of them has 8 bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from zoo.common.reading import open_file
from zoo.errors import ImageError, shorten
from zoo.inputs import InputSpec

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 89_478_485
"""Largest image that is decoded, in pixels: Pillow's own threshold for a decompression bomb (256 MB as RGB)."""

MAX_COPIED_PIXELS = 1 << 25
"""The same for WebP and AVIF, whose decoders hold several copies of an image: 34 million."""

MAX_BYTES = 1 << 30
"""Largest file that is decoded: a TIFF of so many pixels of 16 bits has half of it."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
"""What is decoded, by Pillow's names, whatever the file is called. Others of Pillow's decoders start programs
(Ghostscript for EPS), or take gigabytes before they know the size (JPEG 2000)."""

SUFFIXES = frozenset(".avif .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
"""File name endings that count as images in a folder."""

_LUMA = torch.tensor([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a gray, as Pillow's (ITU-R 601-2)."""

_WIDE_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


@dataclass(frozen=True)
class Crop:
    """Which part of an image fills the network's input: `box` (left, top, right, bottom) in its pixels, float."""

    box: tuple[float, float, float, float]
    exact: bool


def center_crop(height: int, width: int, spec: InputSpec) -> Crop:
    """The crop that resizing the short side to `spec.resize`, then cutting the center, would take.

    An image is scaled up where it would otherwise not fill the input. `exact`: no resampling is needed.
    """
    wanted_height, wanted_width = spec.hw
    scale = max(wanted_height / height, wanted_width / width)
    if spec.resize is not None:
        scale = max(scale, spec.resize / min(height, width))
    if scale == 1.0:
        top, left = (height - wanted_height) // 2, (width - wanted_width) // 2
        return Crop((left, top, left + wanted_width, top + wanted_height), True)
    crop_height, crop_width = wanted_height / scale, wanted_width / scale
    top_, left_ = (height - crop_height) / 2, (width - crop_width) / 2
    box = (max(left_, 0.0), max(top_, 0.0), min(left_ + crop_width, width), min(top_ + crop_height, height))
    return Crop(box, False)


def _wide_gray(image: Image.Image, white: int) -> npt.NDArray[np.float64]:
    """The values of a wide gray, and 1 is white by the depth that its type declares.

    Never by its brightest pixel: dark images stay dark.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("it has pixels that are not finite")
    low, high = float(values.min()), float(values.max())
    top = 1 if image.mode == "F" else white
    if low < 0 or high > top:
        kind = "float" if image.mode == "F" else "integer"
        raise ImageError(
            f"its values span {low:g} to {high:g}; a gray of {kind} pixels spans 0 to {top}. Save it with 8 or 16 bits"
        )
    return values / top


def _white(image: Image.Image) -> int:
    """The value of white in a gray of more than 8 bits: of 12 bits where a TIFF says so.

    Pillow's 32-bit integers hold what files of 16 bits hold (PGM among them), so that 65535 is white in them too.
    """
    bits = getattr(image, "tag_v2", {}).get(258, (16,))
    depth = int(bits[0] if isinstance(bits, tuple) else bits)
    return (1 << depth) - 1 if 8 < depth < 16 else 65535


def to_rgb(image: Image.Image, white: int = 65535) -> Image.Image:
    """`image` as RGB: depth, transparency, palette and color model converted as described above.

    `white` is the value of white in a gray of more than 8 bits.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _WIDE_MODES:
        # 65535 / 255 is 257, which keeps what is a whole number of 8 bits whole
        image = Image.fromarray(np.rint(_wide_gray(image, white) * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


def _rgb_or_wide(image: Image.Image, white: int = 65535) -> Image.Image:
    """As `to_rgb`, but a gray of more than 8 bits as floats in [0, 1], which loses nothing."""
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_wide_gray(image, white).astype(np.float32))
    return to_rgb(image, white)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  damaged EXIF is no reason to refuse a sound image
        return image


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"it is empty ({width}x{height})")
    if width * height > most:
        raise ImageError(f"it is too large ({width}x{height}; at most {most / 1e6:.0f} million pixels)")


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP by its first 30 bytes; None of anything else.

    Pillow allocates the whole canvas as soon as it opens one. Source: RFC 9649, sections 2.5 to 2.7.
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def decode(file: Path | io.BytesIO, most: int = MAX_PIXELS, *, wide: bool = False) -> Image.Image:
    """The image in a file, upright and RGB; of at most so many pixels.

    With `wide`, a gray of more than 8 bits is of floats in [0, 1] (Pillow's mode F) and loses nothing.

    Raises:
        ImageError: unreadable, damaged, too large or of another format; the message does not name the file.
    """
    try:
        with open_file(file, MAX_BYTES) if isinstance(file, Path) else contextlib.nullcontext(file) as content:
            if (size := _webp_size(content.read(30))) is not None:
                _check_size(*size, min(most, MAX_COPIED_PIXELS))
            content.seek(0)
            with Image.open(content, formats=FORMATS) as image:
                _check_size(*image.size, min(most, MAX_COPIED_PIXELS) if image.format == "AVIF" else most)
                image.load()
                return (_rgb_or_wide if wide else to_rgb)(_upright(image), _white(image))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"it is too large (at most {MAX_PIXELS / 1e6:.0f} million pixels)") from error
    except FileNotFoundError as error:
        raise ImageError("it is not there") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"it is damaged, or no image of the kinds that are read: {', '.join(FORMATS)}") from error
    except MemoryError as error:
        raise ImageError("it does not fit into memory") from error
    except Exception as error:  # noqa: BLE001  a decoder fed hostile bytes raises anything
        raise ImageError(f"it is damaged ({shorten(error, 100)})") from error


def readable(name: str) -> str:
    """A file name as text that can be written anywhere: bytes that are no UTF-8 as `\\xe9`.

    >>> readable("caf\\udce9.jpg")
    'caf\\\\xe9.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class LazyImage:
    """An image with a name. `pixels` gives a network's input, uint8 or float32 `(channels, H, W)`."""

    def __init__(self, identity: str) -> None:
        self.id = identity
        self._extent: tuple[int, ...] | None = None

    def image(self) -> Image.Image:
        """The whole image, upright, RGB."""
        raise NotImplementedError

    def precise(self) -> Image.Image:
        """The whole image, upright: RGB, or floats in [0, 1] (Pillow's mode F) of a gray of more than 8 bits."""
        return self.image()

    def digest(self) -> bytes:
        """Digest of the content, cheap to have."""
        raise NotImplementedError

    def extent(self) -> tuple[int, ...]:
        """Height and width, or the length of each axis of a sequence or a volume; a file is decoded for it once."""
        if self._extent is None:
            image = self.image()
            self._extent = (image.height, image.width)
        return self._extent

    def pixels(self, spec: InputSpec) -> Tensor:
        """The center crop that `spec` asks for: uint8 `(channels, H, W)`, or float32 in [0, 1] of more than 8 bits."""
        if spec.dims != 2:
            raise ImageError(f"{self.id} is an image; the model takes {_FORMS[spec.dims]}: give a tensor of them")
        if spec.channels not in (1, 3):
            raise ImageError(
                f"{self.id} has 3 channels, the model takes {spec.channels}: give a tensor (N, {spec.channels}, H, W)"
            )
        image = self.precise()
        if spec.channels == 1 and image.mode != "F":
            image = image.convert("L")
        crop = center_crop(image.height, image.width, spec)
        if crop.exact:
            left, top, right, bottom = (int(v) for v in crop.box)
            if (right - left, bottom - top) != image.size:
                image = image.crop((left, top, right, bottom))
        else:
            height, width = spec.hw
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=crop.box)
        values = np.asarray(image)
        # By NumPy, not torch: a tensor operation this small costs more in waking torch's threads than in work.
        gray = values.ndim == 2
        values = np.broadcast_to(values, (spec.channels, *values.shape)) if gray else values.transpose(2, 0, 1)
        return torch.from_numpy(values.copy())


class FileImage(LazyImage):
    """An image in a file, decoded each time it is asked for."""

    def __init__(self, identity: str, path: Path) -> None:
        super().__init__(identity)
        self.path = path

    def image(self) -> Image.Image:
        """The whole image, upright, RGB."""
        return to_rgb(self.precise())

    def precise(self) -> Image.Image:
        """See `LazyImage`."""
        try:
            return decode(self.path, wide=True)
        except ImageError as error:
            raise ImageError(f"cannot use the image {shorten(self.path, 300)}: {error}") from error

    def digest(self) -> bytes:
        """Digest of the content."""
        try:
            with open_file(self.path) as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise ImageError(f"cannot read {shorten(self.path, 300)}: {error.strerror}") from error


class ArchiveImage(LazyImage):
    """An image inside of a larger file: `size` bytes from `offset` on, decoded each time it is asked for."""

    def __init__(self, identity: str, path: Path, offset: int, size: int) -> None:
        super().__init__(identity)
        self.path, self.offset, self.size = path, offset, size

    def image(self) -> Image.Image:
        """The whole image, upright, RGB."""
        return to_rgb(self.precise())

    def precise(self) -> Image.Image:
        """See `LazyImage`."""
        try:
            return decode(io.BytesIO(self._bytes()), wide=True)
        except ImageError as error:
            raise ImageError(
                f"cannot use the image {shorten(self.id)} in {shorten(self.path, 200)}: {error}"
            ) from error

    def digest(self) -> bytes:
        """Digest of the content."""
        return hashlib.sha256(self._bytes()).digest()

    def _bytes(self) -> bytes:
        try:
            with open_file(self.path) as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise ImageError(f"cannot read {shorten(self.path, 300)}: {error.strerror}") from error


class MemoryImage(LazyImage):
    """An image in memory, as RGB or as a gray of floats in [0, 1]."""

    def __init__(self, identity: str, image: Image.Image) -> None:
        super().__init__(identity)
        _check_size(*image.size)
        self._image = _rgb_or_wide(_upright(image))

    def image(self) -> Image.Image:
        """The whole image, upright, RGB."""
        return to_rgb(self._image)

    def precise(self) -> Image.Image:
        """See `LazyImage`."""
        return self._image

    def digest(self) -> bytes:
        """Digest of the content."""
        return hashlib.sha256(f"{self._image.size}".encode() + self._image.tobytes()).digest()


_FORMS = {1: "a sequence", 2: "an image", 3: "a volume"}
"""Names of what a network is fed, by the number of axes of positions."""


class TensorImage(LazyImage):
    """One image of a tensor: float `(channels, H, W)` in [0, 1], never rounded to bytes; or a sequence, or a volume."""

    def __init__(self, identity: str, values: Tensor) -> None:
        super().__init__(identity)
        self._values, self._extent = values, tuple(values.shape[1:])

    def image(self) -> Image.Image:
        """The whole image, upright, RGB."""
        channels = self._values.shape[0]
        if self._values.ndim != 3:
            raise ImageError(f"{self.id} is {_FORMS[self._values.ndim - 1]}, and cannot be shown as an image")
        if channels not in (1, 3):
            raise ImageError(f"{self.id} has {channels} channels and cannot be shown as an image")
        array = (self._values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return Image.fromarray(array[:, :, 0] if channels == 1 else array).convert("RGB")

    def digest(self) -> bytes:
        """Digest of the content."""
        values = self._values.contiguous()
        return hashlib.sha256(f"{tuple(values.shape)}".encode() + values.numpy().tobytes()).digest()

    def pixels(self, spec: InputSpec) -> Tensor:
        """The center crop that `spec` asks for, float32; a sequence or a volume as it is, `folded`."""
        if self._values.ndim != spec.dims + 1:
            what, wanted = _FORMS[self._values.ndim - 1], _FORMS[spec.dims]
            raise ImageError(f"{self.id} is {what} of shape {tuple(self._values.shape)}; the model takes {wanted}")
        if spec.dims != 2:
            if tuple(self._values.shape) != spec.native_shape:
                got, shape = tuple(self._values.shape), spec.native_shape
                raise ImageError(f"{self.id} has the shape {got}, the model takes {shape}: cut it to that")
            return spec.folded(self._values[None])[0]
        channels, height, width = self._values.shape
        if channels != spec.channels:
            raise ImageError(f"{self.id} has {channels} channels, the model takes {spec.channels}")
        if (height, width) == spec.hw:
            return self._values
        crop = center_crop(height, width, spec)
        if crop.exact:
            left, top, right, bottom = (int(v) for v in crop.box)
            return self._values[:, top:bottom, left:right]
        # as Pillow resamples images, cut between pixels where the crop is
        resized = [
            np.asarray(Image.fromarray(channel).resize(spec.hw[::-1], Image.Resampling.BILINEAR, box=crop.box))
            for channel in self._values.numpy()
        ]
        return torch.from_numpy(np.stack(resized))


class ArrayImage(TensorImage):
    """One image of an array of floats, never rounded to bytes; gray or in color as a network wants it, as a file is."""

    def pixels(self, spec: InputSpec) -> Tensor:
        """See `TensorImage`."""
        if spec.dims == 2 and {len(self._values), spec.channels} == {1, 3}:
            gray = len(self._values) == 1
            values = self._values.expand(3, -1, -1) if gray else torch.einsum("chw,c->hw", self._values, _LUMA)[None]
            return TensorImage(self.id, values).pixels(spec)
        return super().pixels(spec)


def array_image(values: npt.NDArray[np.generic], identity: str) -> LazyImage:
    """An image of an array `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`: uint8, or float in [0, 1]."""
    array = np.asarray(values)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"an array of an image is (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    _check_size(array.shape[1], array.shape[0])
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= -1e-4 and array.max() <= 1 + 1e-4):
            raise ImageError(f"a float array must lie in [0, 1]; it spans {array.min():g} to {array.max():g}")
        maps = np.atleast_3d(array.astype(np.float32).clip(0, 1)).transpose(2, 0, 1)
        if len(maps) == 4:  # transparency is laid on white
            maps = maps[:3] * maps[3] + (1 - maps[3])
        return ArrayImage(identity, torch.from_numpy(np.ascontiguousarray(maps)))
    if array.dtype != np.uint8:
        raise ImageError(f"an array of an image is uint8, or float in [0, 1], not {array.dtype}")
    return MemoryImage(identity, Image.fromarray(np.ascontiguousarray(array)))
