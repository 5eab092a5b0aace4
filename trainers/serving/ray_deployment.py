"""
Replicas of the server under Ray Serve, behind one address. Extra `ray`.

    serve run trainers.serving.ray_deployment:app model=MODEL num_replicas=2

Each replica is the whole server of `trainers.serving.server` with a model of its own. Ray spreads requests over them, restarts
those that die, and holds `max_queued_requests` that none has taken yet; beyond that clients get 503.
"""

import asyncio
import functools
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from ray import serve
from ray.serve import Application

from modeling_slam_asr.recordings_slam_asr import WindowItem
from trainers.engines import load_pipeline
from trainers.serving.server.app import create_app
from trainers.serving.server.form import Options
from trainers.serving.server.settings import ServerSettings, key_from_environment
from trainers.serving.server.transcription import Submit


class Arguments(BaseModel):
    """
    What `serve run` or a configuration file gives.

    model, engine, device, dtype, revision: as of `slam-asr serve`. model_name: what requests call the model.
    num_replicas, num_cpus, num_gpus: how many, and what each takes.
    max_batch, max_queue_seconds, max_upload_mb: of each replica, as of `slam-asr serve`.
    num_beams, max_new_tokens, ctc_weight, window_seconds, vad, drop_no_speech: for all requests, as of `slam-asr serve`.
    batch_wait_seconds: how long the first window of a batch waits for others.
    max_ongoing_requests: that one replica takes at a time. max_queued_requests: that wait for a replica.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    model_name: str = "slam-asr"
    engine: str = "torch"
    device: str | None = None
    dtype: str | None = None
    revision: str | None = None
    num_replicas: PositiveInt = 1
    num_cpus: PositiveFloat = 1
    num_gpus: float = 0
    max_batch: PositiveInt = ServerSettings.max_batch
    max_queue_seconds: PositiveFloat = ServerSettings.max_queue_seconds
    max_upload_mb: PositiveFloat = ServerSettings.max_upload_mb
    num_beams: PositiveInt | None = None
    max_new_tokens: PositiveInt | None = None
    ctc_weight: float | None = Field(None, ge=0, lt=1)
    window_seconds: float | None = None
    vad: str | None = None
    drop_no_speech: bool = False
    batch_wait_seconds: float = 0.01
    max_ongoing_requests: PositiveInt = 32
    max_queued_requests: PositiveInt = 128


def app(args: Arguments) -> Application:
    """The application that `serve run` starts."""

    def server() -> FastAPI:  # a function: anything else Ray takes for the application itself
        return build(args)

    replica: Any = serve.deployment(
        serve.ingress(server)(),
        name="slam-asr",
        num_replicas=args.num_replicas,
        max_ongoing_requests=args.max_ongoing_requests,
        max_queued_requests=args.max_queued_requests,
        ray_actor_options={"num_cpus": args.num_cpus, "num_gpus": args.num_gpus},
    )
    return replica.bind()


def build(args: Arguments) -> FastAPI:
    """One replica's server."""
    pipe: Any = load_pipeline(
        args.model, engine=args.engine, device=args.device, dtype=args.dtype, revision=args.revision
    )
    decoding = args.model_dump(include={"num_beams", "max_new_tokens", "ctc_weight"}, exclude_none=True)
    settings = ServerSettings(
        model_names=(args.model_name,),
        max_batch=args.max_batch,
        max_queue_seconds=args.max_queue_seconds,
        max_requests=args.max_ongoing_requests + 1,  # Ray counts them before the server does
        max_upload_mb=args.max_upload_mb,
        api_key=key_from_environment(),
        window_seconds=args.window_seconds,
        vad=args.vad,
        drop_no_speech=args.drop_no_speech,
        generate=decoding,
    )
    return create_app(pipe, settings, functools.partial(batched, args))


def batched(args: Arguments, submit: Submit) -> Submit:
    """`submit` with Ray's batching before it: Ray collects windows, the server puts those of like length together."""

    @serve.batch(max_batch_size=args.max_batch, batch_wait_timeout_s=args.batch_wait_seconds)
    async def together(windows: Any, options: Any) -> Any:  # Ray gives lists of what `transcribe` gives one of
        return await asyncio.gather(*map(submit, windows, options), return_exceptions=True)

    async def transcribe(window: WindowItem, options: Options) -> WindowItem:
        done = await together(window, options)
        if isinstance(done, BaseException):
            raise done
        return done

    return transcribe
