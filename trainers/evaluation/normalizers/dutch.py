"""Dutch text normalisation for scoring."""

from trainers.evaluation.normalizers.basic import paper


def dutch(text: str) -> str:
    return paper(text)
