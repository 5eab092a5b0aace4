"""What a replica under Ray Serve makes of its arguments, without Ray."""

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


def test_a_replica_decodes_as_its_arguments_say(make_server_pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray: Any = ModuleType("ray")
    ray.serve = ModuleType("ray.serve")
    ray.serve.Application, ray.serve.batch = object, lambda **how: lambda function: function
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", ray.serve)
    name = "trainers.serving.ray_deployment"
    monkeypatch.setitem(sys.modules, name, ray)  # so that what is imported here is gone afterwards
    del sys.modules[name]
    ray_deployment = importlib.import_module(name)

    pipe = make_server_pipe()
    checked: list[Any] = []
    pipe.check_decoding = checked.append
    made: list[Any] = []
    create_app = ray_deployment.create_app
    monkeypatch.setattr(ray_deployment, "load_pipeline", lambda *_, **__: pipe)
    monkeypatch.setattr(ray_deployment, "create_app", lambda *given: made.append(given) or create_app(*given))
    ray_deployment.build(ray_deployment.Arguments(model="m", num_beams=2, window_seconds=5.0, drop_no_speech=True))
    settings = made[0][1]
    assert checked == [{"num_beams": 2}] == [settings.generate]
    assert (settings.window_seconds, settings.vad, settings.drop_no_speech) == (5.0, None, True)
    with pytest.raises(ValueError, match="window_seconds must lie between"):
        ray_deployment.build(ray_deployment.Arguments(model="m", window_seconds=60.0))
