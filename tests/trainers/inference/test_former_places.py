"""Names that programs of users import stay where they were."""

from trainers.inference import evaluate, torch_engine


def test_the_torch_engine_can_be_imported_from_its_former_place() -> None:
    assert evaluate.load_pipeline is torch_engine.load_pipeline and evaluate.pipeline_of is torch_engine.pipeline_of
