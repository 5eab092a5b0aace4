"""`slam-asr serve`: a transcription server that speaks OpenAI's API."""

import argparse
import importlib.util
import ipaddress
import sys
from pathlib import Path
from typing import Any

from trainers.commands.arguments import add_decoding_arguments, add_window_arguments, decoding_of

HELP = """\
Serve a model over HTTP: OpenAI's `POST /v1/audio/transcriptions`, a page for browsers at `/`, `/health`, `/metrics`.

Windows of all requests go through the model together. What would wait too long is refused at once (429, with Retry-After).
The server listens on this machine alone unless --host says otherwise. With SLAM_ASR_API_KEY set in the environment, requests
must bring that key. Ctrl-C or SIGTERM ends it once the requests at work are answered."""

EPILOG = """\
examples:
  slam-asr serve quickstart/model
  slam-asr serve my/model --port 9000 --max-batch 16 --max-queue-seconds 7200
  SLAM_ASR_API_KEY=... slam-asr serve my/model --host 0.0.0.0 --model-name whisper-1

  curl http://127.0.0.1:8000/v1/audio/transcriptions -F file=@talk.wav -F response_format=srt

Needs `pip install "slam-asr[serve]"`. docs/server.md tells more."""
_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def configure(parser: argparse.ArgumentParser) -> None:
    from trainers.engines import add_engine_arguments
    from trainers.serving.server.settings import add_limit_arguments

    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="a model folder or Hub name")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1; 0.0.0.0: all)")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    parser.add_argument(
        "--model-name",
        action="append",
        metavar="NAME",
        help="what requests call the model (default: its own name); may be given several times",
    )
    add_limit_arguments(parser.add_argument_group("limits"))
    decoding = parser.add_argument_group("decoding")
    add_decoding_arguments(decoding)
    add_window_arguments(decoding)
    add_engine_arguments(decoding)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    from trainers.errors import UserError
    from trainers.serving.without_torch import prepare_process

    prepare_process(args.engine)

    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f'serve needs {", ".join(missing)}. Install with `pip install "slam-asr[serve]"`.')
    decoding = decoding_of(args)

    from modeling_slam_asr.windows_slam_asr import check_vad
    from trainers.serving.server.run import bound, serve
    from trainers.serving.server.settings import API_KEY_VARIABLE, ServerSettings, key_from_environment, limits_of

    check_vad(args.vad)
    own_name = Path(args.model).resolve().name if Path(args.model).is_dir() else args.model
    settings = ServerSettings(
        model_names=tuple(args.model_name or [own_name]),
        api_key=key_from_environment(),
        window_seconds=args.window_seconds,
        vad=args.vad,
        drop_no_speech=args.drop_no_speech,
        generate=decoding,
        **limits_of(args),
    )
    listening = bound(args.host, args.port)
    if settings.api_key is None and not _is_local(listening.getsockname()[0]):
        print(
            f"slam-asr serve: everybody who reaches {args.host} can use this server. Set {API_KEY_VARIABLE} to ask for a key.",
            file=sys.stderr,
        )

    from trainers.engines import load_pipeline

    pipe: Any = load_pipeline(
        args.model, engine=args.engine, device=args.device, dtype=args.dtype, revision=args.revision
    )
    serve(pipe, settings, listening, lambda line: print(line, flush=True))
    return 0


def _is_local(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
