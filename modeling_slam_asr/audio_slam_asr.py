"""Reading sound: any usual source to 16 kHz mono samples, or an error that says what is wrong with it."""

import io
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

import numpy as np
from transformers.utils import logging

from .windows_slam_asr import WHOLE, Part, check_end, decode_wav, joined_files, missing_end, read_in_part, with_sizes

try:
    import soundfile
except ImportError:  # 16-bit wav files are then read by the standard library
    soundfile = None
try:
    import soxr
except ImportError:  # sound at the model's own rate needs no resampling
    soxr = None
try:
    from huggingface_hub.utils import httpx  # what transformers' own pipelines fetch addresses with
except ImportError:
    httpx = None  # type: ignore[assignment]

__all__ = ["SAMPLING_RATE", "UNKNOWN_FRAMES", "is_address", "load_audio"]

SAMPLING_RATE = 16_000  # Hz: what Whisper reads
DOWNLOAD_BYTES = 1 << 30
DOWNLOAD_SECONDS = 300.0
_SILENT_SECONDS = 30.0  # without a byte from the server
_REDIRECTS = 10
# The environment variable with the hosts, parted by spaces, whose address need not be public.
PRIVATE_HOSTS = "SLAM_ASR_PRIVATE_HOSTS"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
BLOCK_SECONDS = 30
# A kilobyte of a few kinds of file can announce gigabytes of sound. Speech at the lowest rates in use unpacks to some 500 times
# its size; 64 MiB is 17 minutes at 16 kHz.
MAX_SECONDS = 6 * 3600.0  # of a recording that is read at once
MAX_UNPACKED = 1000
UNKNOWN_FRAMES = 1 << 40  # and above: libsndfile's number where a header does not say how much follows, as in a stream
_SMALL_BYTES = 64 << 20
_LOUDEST = 8.0  # of floats from -1 to 1: filters and codecs go beyond 1, and not far
_LONGEST_NAME = 300  # characters of a file's name that a message shows
_RATES = range(1_000, 10_000_000)  # Hz; a 16 is meant in kHz
_HEAD_BYTES = 1 << 20  # of a long file, where an MP3 file says how long it is
_Decoded = tuple[np.ndarray, int, str | None]  # samples `(samples, channels)`, their rate, what shows a missing end

logger = logging.get_logger(__name__)


def load_audio(
    source: Any,
    sampling_rate: int = SAMPLING_RATE,
    source_rate: int | None = None,
    whole: bool = False,
    *,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """
    Read one recording, or a part of it.

    Args:
        source: a file's path; an `http(s)` address; a file's bytes, or the open file; samples as an array, tensor or list of numbers
            (`(samples,)`, `(samples, channels)` or `(channels, samples)`; whole numbers are PCM of their width, and so are floats
            in the range of 16 bits); a `(rate, samples)` or `(samples, rate)` pair; a mapping
            with `array` (or `raw`) and `sampling_rate`, or with `bytes` or `path`, or with any of these under `audio`, as rows
            of `datasets` have; or a torchcodec `AudioDecoder`.
        sampling_rate: wanted rate in Hz.
        source_rate: rate in Hz of samples given as an array; the wanted rate when None.
        whole: refuse a file whose end is missing, as after a copy that broke off; else there is a warning.
        start, end: the part to read, in seconds; of a file no more than that is read. `end` is the recording's when None.
        channel: the one to read, from 0; the mean of all when None.
    Returns:
        `(samples,)` float32, channels averaged.
    Raises:
        ValueError: when there is no such file, or it cannot be decoded, is empty, has NaN or infinite samples, is longer than
            `MAX_SECONDS` or unpacks to more than `MAX_UNPACKED` times its size; or the part or channel is not in it.
    """
    name = describe(source)
    samples, sign = _load(*_unwrap(source, name, source_rate), sampling_rate, name, Part(start, end, channel))
    check_end(sign, name, whole)
    return samples


def _load(
    source: Any, source_rate: int | None, sampling_rate: int, name: str, part: Part = WHOLE
) -> tuple[np.ndarray, str | None]:
    """The samples of [`load_audio`], once mappings, decoders and open files are unwrapped, and what shows a missing end."""
    if hasattr(source, "is_floating_point"):  # a tensor of torch, which need not be there
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    if isinstance(source, list | tuple):
        source = _array(source, name)
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if isinstance(source, np.ndarray):
        rate, sign = sampling_rate if source_rate is None else source_rate, None
        samples = part.cut(source, rate, name)
    elif isinstance(source, str | os.PathLike | bytes):
        samples, rate, sign = _decode(source, name, part)
    else:
        raise ValueError(
            f"{name} is no audio. Give a path, a file's bytes, an array, or a mapping with 'array' and 'sampling_rate'."
        )
    samples = _to_mono(part.mono(samples, name), name)
    if samples.size == 0:
        raise ValueError(f"{name} is empty: it holds no samples. Leave it out or record it again.")
    _refuse_non_finite(samples, name)
    return _resample(samples, rate, sampling_rate, name), sign


def read_blocks(source: Any, sampling_rate: int = SAMPLING_RATE) -> tuple[Iterator[np.ndarray], float, bool]:
    """
    Read one recording in turn: of a long file no more than a block is in memory at a time.

    Args:
        source, sampling_rate: as in [`load_audio`].
    Returns:
        blocks `(samples,)` float32, which joined are the recording; its length in seconds; whether its end is there.
    Raises:
        ValueError: as [`load_audio`]; for what is found late in a long file, while the blocks are read.
    """
    name = describe(source)
    file, rate = _unwrap(source, name, None)
    if soundfile is not None and isinstance(file, str | os.PathLike) and not is_address(file) and os.path.isfile(file):
        try:
            info = soundfile.info(_file_name(file))
        except (soundfile.LibsndfileError, RuntimeError):
            info = None  # `_load` says what is wrong
        if (
            info is not None
            and not read_in_part(file, name)
            and info.duration > 2 * BLOCK_SECONDS
            and info.samplerate in _RATES
            and (soxr or info.samplerate == sampling_rate)
        ):
            with open(file, "rb") as head:
                sign = missing_end(head.read(_HEAD_BYTES), os.path.getsize(file), info.extra_info)
            check_end(sign, name, False)
            return _file_blocks(os.fspath(file), sampling_rate, name), float(info.duration), sign is None
    samples, sign = _load(file, rate, sampling_rate, name)
    check_end(sign, name, False)
    return iter([samples]), len(samples) / sampling_rate, sign is None


def is_address(source: Any) -> bool:
    """Whether `source` is the address of a file on the web."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def rate_pair(source: Any) -> Any:
    """A `(rate, array)` or `(array, rate)` pair, as Gradio and torchaudio give them, as a mapping; anything else as it is."""
    if not isinstance(source, tuple | list) or len(source) != 2:
        return source
    for rate, samples in (source, source[::-1]):
        if isinstance(rate, int | float | np.number) and (
            isinstance(samples, np.ndarray | list) or hasattr(samples, "is_floating_point")
        ):
            return {"array": samples, "sampling_rate": rate}
    return source


def describe(source: Any) -> str:
    """A short name of an audio source for messages."""
    if isinstance(source, Mapping):
        inner = next((source[key] for key in ("audio", "path", "bytes") if source.get(key) is not None), None)
        return f"The recording (a {type(source).__name__})" if inner is None else describe(inner)
    if isinstance(source, str | os.PathLike):
        name = repr(os.fspath(source))
        return f"The recording {name if len(name) <= _LONGEST_NAME else f'{name[:_LONGEST_NAME]}...'}"
    if isinstance(source, bytes):
        return f"The recording ({len(source)} bytes)"
    if isinstance(source, np.ndarray) or hasattr(source, "is_floating_point"):
        return f"The recording (an array of shape {tuple(source.shape)})"
    return f"The recording (a {type(source).__name__})"


def _unwrap(source: Any, name: str, rate: int | None) -> tuple[Any, int | None]:
    """What a mapping, pair, decoder or open file holds, and its rate if it says one."""
    source = rate_pair(source)
    if isinstance(source, Mapping) and source.get("audio") is not None:
        return _unwrap(source["audio"], name, rate)
    if hasattr(source, "get_all_samples"):
        decoded = source.get_all_samples()
        return decoded.data, decoded.sample_rate
    if hasattr(source, "read"):
        return source.read(), rate
    if not isinstance(source, Mapping):
        return source, rate
    samples = source.get("array", source.get("raw"))
    if samples is not None:
        if source.get("sampling_rate") is None:
            raise ValueError(f"{name} has samples but no 'sampling_rate' in Hz; without it they cannot be read.")
        return samples, source["sampling_rate"]
    content = next((source[key] for key in ("bytes", "path") if source.get(key) is not None), None)
    if content is None:
        raise ValueError(f"{name} has none of the keys 'array', 'raw', 'bytes', 'path' and 'audio'.")
    return content, rate


def _array(numbers: list[Any] | tuple[Any, ...], name: str) -> np.ndarray:
    try:
        return np.asarray(numbers)
    except ValueError as error:
        raise ValueError(f"{name} is a list of uneven parts; give one number a sample.") from error


def _refuse_non_finite(samples: np.ndarray, name: str) -> None:
    bad = int((~np.isfinite(samples)).sum())
    if bad:
        raise ValueError(
            f"{name} has {bad} NaN or infinite samples of {samples.size}. Export it again as 16-bit PCM or drop it."
        )


def _file_name(path: str | os.PathLike[str]) -> str | bytes:
    """A path as soundfile takes it: names on POSIX are bytes, and need not be UTF-8."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def _file_blocks(path: str, sampling_rate: int, name: str) -> Iterator[np.ndarray]:
    try:
        with soundfile.SoundFile(_file_name(path)) as file:
            rate, scale = file.samplerate, 1.0
            frames = min(BLOCK_SECONDS * rate, max(1, _SMALL_BYTES // (4 * file.channels)))
            if file.subtype in ("FLOAT", "DOUBLE"):
                scale = _pcm_scale(max(float(np.nanmax(np.abs(b))) for b in file.blocks(frames)), name)
                file.seek(0)
            resampler = None if rate == sampling_rate else soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32")
            while True:
                block = file.read(frames, dtype="float32", always_2d=True)
                samples = block.mean(axis=1, dtype=np.float32) if len(block) else np.zeros(0, dtype=np.float32)
                _refuse_non_finite(samples, name)
                samples /= scale
                if resampler is not None:
                    samples = resampler.resample_chunk(samples, last=not len(block))
                if len(samples):
                    yield samples
                if not len(block):
                    return
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"{name} is damaged: {_reason(error)}. Get a whole copy of it.") from error


def _download(address: str, name: str) -> bytes:
    """The file at an address, within `DOWNLOAD_BYTES` and `DOWNLOAD_SECONDS`."""
    if httpx is None:
        raise ValueError(
            f"{name} is on the web, and httpx, which fetches it, is not installed. Download the file first."
        )
    ends = time.monotonic() + DOWNLOAD_SECONDS
    try:
        url = httpx.URL(address)
        for _ in range(_REDIRECTS + 1):
            with _answer(url, name) as response:
                if not response.has_redirect_location:
                    return _body(response, name, ends)
                url = url.join(response.headers["location"])
        raise ValueError(f"{name} cannot be fetched: it is redirected more than {_REDIRECTS} times.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"{name} cannot be fetched: {reason}.") from error


@contextmanager
def _answer(url: Any, name: str) -> Iterator[Any]:
    """What a server answers, asked at the very IP address that was checked: a second look-up could give another."""
    proxies, host = getproxies(), url.raw_host.decode()
    proxy = None if proxy_bypass(host) else proxies.get(url.scheme, proxies.get("all"))
    places = _public_addresses(url, host, name, proxy is not None)
    options: dict[str, Any] = {"headers": {"Host": url.netloc.decode()}, "extensions": {"sni_hostname": host}}
    with httpx.Client(
        timeout=_SILENT_SECONDS, trust_env=False, proxy=proxy, verify=httpx.create_ssl_context()
    ) as client:
        for left, place in enumerate(places, start=1 - len(places)):
            request = client.build_request("GET", url.copy_with(host=place), **options)
            try:
                response = client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if not left:
                    raise
                continue
            with closing(response):
                yield response
            return


def _public_addresses(url: Any, host: str, name: str, by_proxy: bool) -> list[str]:
    """The IP addresses of a host, none of them private; a proxy looks names up itself."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST * by_proxy)
    except (OSError, UnicodeError) as error:
        if by_proxy:
            return [host]
        raise ValueError(f"{name} cannot be fetched: the host {host[:80]!r} is not known.") from error
    places = list(dict.fromkeys(str(place[0]) for *_, place in found))
    private = [place for place in places if not _is_public(place)]
    if private and host not in os.environ.get(PRIVATE_HOSTS, "").split():
        raise ValueError(
            f"{name} is not fetched: the host {host!r} has the address {private[0]}, which is not on the public internet. If it "
            f"is meant, name the host in the environment variable {PRIVATE_HOSTS}, or download the file first."
        )
    return places


def _is_public(place: str) -> bool:
    """Whether an IP address, or the IPv4 address in one of IPv6's forms of it, is one of the public internet."""
    ip: Any = ipaddress.ip_address(place.partition("%")[0])
    if ip.version == 6:
        ip = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip)
    return ip.is_global and not ip.is_multicast


def _body(response: Any, name: str, ends: float) -> bytes:
    if response.status_code != 200:
        raise ValueError(f"{name} cannot be fetched: the server answers {response.status_code}.")
    parts, held = [], 0
    for part in response.iter_bytes():
        parts.append(part)
        held += len(part)
        if held > DOWNLOAD_BYTES:
            raise ValueError(f"{name} is longer than {DOWNLOAD_BYTES >> 20} MiB. Download it and give its path.")
        if time.monotonic() > ends:
            raise ValueError(f"{name} is not here after {DOWNLOAD_SECONDS:.0f} s. Download it and give its path.")
    return b"".join(parts)


def _decode(source: str | os.PathLike[str] | bytes, name: str, part: Part = WHOLE) -> _Decoded:
    if isinstance(source, str | os.PathLike) and not is_address(source) and soundfile is not None and not part.all:
        data, size = None, _size(source, name)
    else:
        data = source if isinstance(source, bytes) else _content(source, name)
        size = len(data)
    if not size:
        raise ValueError(f"{name} is empty: the file has 0 bytes.")
    data = None if data is None else with_sizes(data)
    if soundfile is None:
        samples, rate, sign = decode_wav(data or b"", name)
        return part.cut(samples, rate, name), rate, sign
    try:
        if data is not None and len(joined := joined_files(data, name)) > 1:
            return _decode_joined(joined, name, part)
        with (
            io.BytesIO(data) if data is not None else open(source, "rb") as stored,
            soundfile.SoundFile(stored) as file,
        ):
            rate, sign = file.samplerate, None
            if file.frames >= UNKNOWN_FRAMES:
                return part.cut(_read_stream(file, size, name), rate, name), rate, None
            first, count = (0, file.frames) if part.all else part.frames(file.frames, rate, name)
            _check_size(count, file.channels, rate, size, name)
            if part.all:
                sign = missing_end(data or b"", size, file.extra_info)
            else:
                file.seek(first)
            samples = file.read(count, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(
            f"{name} is not sound that can be decoded: {_reason(error)}. wav, flac, ogg, opus and mp3 are read; "
            "convert others first, for example with `ffmpeg -i FILE out.flac`."
        ) from error
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror or error}.") from error
    if not part.all and len(samples) < count:
        sign = f"its header announces more than the {first + len(samples)} samples that are there"
    return samples, rate, sign


def _decode_joined(files: list[bytes], name: str, part: Part) -> _Decoded:
    """Several files in a row as one recording; the size of all is checked before each takes memory."""
    size, kinds, decoded, held, sign = sum(map(len, files)), set(), [], 0, None
    for file in files:
        info = soundfile.info(io.BytesIO(file))
        kinds.add((info.channels, info.samplerate))
        if len(kinds) > 1:
            raise ValueError(
                f"{name} is several recordings of different kinds in a row. Save them as files of their own."
            )
        announced = info.frames if info.frames < UNKNOWN_FRAMES else 0
        _check_size(held + announced, info.channels, info.samplerate, size, name)
        samples, _, lost = _decode(file, name)
        decoded.append(samples)
        held, sign = held + len(samples), sign or lost
    return part.cut(np.concatenate(decoded), info.samplerate, name), info.samplerate, sign


def _content(source: str | os.PathLike[str], name: str) -> bytes:
    """The bytes of a file, or of what lies at an address."""
    if is_address(source):
        return _download(str(source), name)
    size = _size(source, name)
    try:
        if size > _SMALL_BYTES and soundfile is not None:  # what is no sound, or too much, is not worth the memory
            with open(source, "rb") as stored, soundfile.SoundFile(stored) as file:
                if file.frames < UNKNOWN_FRAMES:
                    _check_size(file.frames, file.channels, file.samplerate, size, name)
        return Path(source).read_bytes()
    except RuntimeError as error:
        raise ValueError(f"{name} is not sound that can be decoded: {_reason(error)}.") from error
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}.") from error


def _size(source: str | os.PathLike[str], name: str) -> int:
    """The bytes that a file has."""
    try:
        found = os.stat(source)
    except FileNotFoundError:
        raise ValueError(f"{name} does not exist. Check the path.") from None
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        raise ValueError(f"{name} cannot be read: {getattr(error, 'strerror', error)}.") from error
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{name} is a folder. Name the sound files in it.")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(
            f"{name} is no file but a device or a pipe, which may never end. Save its sound to a file first."
        )
    return found.st_size


def _read_stream(file: Any, size: int, name: str) -> np.ndarray:
    """The samples of an open file whose header does not say how many there are."""
    blocks, held = [], 0
    while len(block := file.read(BLOCK_SECONDS * file.samplerate, dtype="float32", always_2d=True)):
        blocks.append(block)
        held += len(block)
        _check_size(held, file.channels, file.samplerate, size, name)
    return np.concatenate(blocks) if blocks else np.zeros((0, file.channels), dtype=np.float32)


def _check_size(frames: int, channels: int, rate: int, size: int, name: str) -> None:
    """Refuse what would take a machine's memory, before it does."""
    unpacked = 4 * frames * channels
    if frames > MAX_SECONDS * rate or (unpacked > _SMALL_BYTES and unpacked > MAX_UNPACKED * size):
        raise ValueError(
            f"{name} has {size} bytes and announces {frames / rate:.0f} s of sound, {unpacked >> 20} MiB unpacked: more than "
            f"{MAX_SECONDS / 3600:.0f} hours, or than speech would. Cut it, or leave it out."
        )


def _reason(error: Exception) -> str:
    """What soundfile found, without the name that it gives the file: of bytes that is an object's."""
    return str(getattr(error, "error_string", error)).splitlines()[0].rstrip(".")


def _to_mono(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.dtype == np.int64 or samples.dtype == np.uint64:
        # Python's own whole numbers; as 64-bit sound they would be silence.
        if samples.size and np.abs(samples).max() > 32_768:
            raise ValueError(
                f"{name} has 64-bit whole numbers beyond 16-bit PCM. Give an int16 or int32 array, or floats from -1 to 1."
            )
        samples = np.clip(samples, -32_768, 32_767).astype(np.int16)
    if samples.dtype.kind not in "iuf":
        raise ValueError(f"{name} holds values of type {samples.dtype}, which are no samples. Give numbers.")
    if samples.ndim not in (1, 2):
        raise ValueError(f"{name} has {samples.ndim} dimensions; give (samples,) or (samples, channels).")
    if samples.dtype.kind in "iu":
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = (samples.astype(np.float64) - (half if samples.dtype.kind == "u" else 0.0)) / half
    elif samples.size and (peak := float(np.abs(samples).max())) > _LOUDEST:
        samples = samples / _pcm_scale(peak, name)
    samples = samples.astype(np.float32, copy=False)
    if samples.ndim == 2:
        # Recordings are longer than they have channels, whichever axis comes first.
        samples = (
            samples.mean(axis=int(np.argmin(samples.shape)), dtype=np.float32) if samples.size else samples.reshape(-1)
        )
    return samples


def _pcm_scale(peak: float, name: str) -> float:
    """What floats with this peak are to be divided by."""
    if peak <= _LOUDEST or not np.isfinite(peak):
        return 1.0
    if peak > 32_768:
        raise ValueError(f"{name} has samples up to {peak:g}. Give floats from -1 to 1, or whole numbers.")
    logger.warning(f"{name} has floats up to {peak:g}: they are read as 16-bit samples. Floats go from -1 to 1.")
    return 32_768.0


def _resample(samples: np.ndarray, rate: Any, wanted: int, name: str) -> np.ndarray:
    if not isinstance(rate, int | float | np.number) or not _RATES.start <= rate < _RATES.stop:
        raise ValueError(f"{name} has the sampling rate {rate!r}, which is not possible. Give it in Hz, as 16000.")
    if rate == wanted:
        return np.ascontiguousarray(samples)
    if soxr is None:
        raise ValueError(f"{name} has {rate} Hz and the model reads {wanted} Hz. `pip install soxr` to resample.")
    return soxr.resample(samples, rate, wanted).astype(np.float32, copy=False)
