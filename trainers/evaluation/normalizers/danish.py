"""Danish text normalisation for scoring."""

from trainers.evaluation.normalizers.basic import paper


def danish(text: str) -> str:
    return paper(text)
