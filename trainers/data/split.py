"""A table of one's own cut into train, validation and test, so that no speaker is in two of them."""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from trainers.errors import UserError

PARTS = ("train", "validation", "test")


def split_groups(groups: Sequence[Hashable | None], shares: Mapping[str, float], seed: int) -> list[str]:
    """
    The part of each row, those of a group in the same.

    In a seeded order groups go to the part that lacks most of its share, unless it would have half as much again then; what no
    part takes is for training. A part without any gets the smallest.

    Args:
        groups: of each row, such as its speaker; rows with None are for training.
        shares: of `validation` and `test`, from 0 to 1.
    Raises:
        UserError: there are fewer groups than parts.
    """
    sizes: dict[Hashable, int] = defaultdict(int)
    for group in groups:
        if group is not None:
            sizes[group] += 1
    wanted = [part for part in PARTS[::-1] if shares.get(part)]
    for_training = sum(sizes.values()) == len(groups)  # 1 group that is kept for it, where no row without one is
    if len(sizes) < len(wanted) + for_training:
        raise UserError(
            f"There are {len(sizes)} groups (speakers, unless --by says otherwise), too few for {len(wanted)} parts beside the training "
            "data. Choose a column of more values with --by, such as the sound file's, though a voice is then in several parts; or leave a "
            "part out with --validation 0 or --test 0."
        )
    order = sorted(sizes, key=str)
    random.Random(seed).shuffle(order)
    goals = {part: shares[part] * len(groups) for part in wanted}
    held = dict.fromkeys(wanted, 0)
    found: dict[Hashable | None, str] = {}

    def take(group: Hashable, part: str) -> None:
        found[group] = part
        held[part] += sizes[group]

    for group in order:
        for part in sorted(wanted, key=lambda one: held[one] / goals[one]):
            others = sum(not held[one] for one in wanted if one != part) + for_training
            fits = held[part] < goals[part] and held[part] + sizes[group] <= 1.5 * goals[part]
            if fits and len(sizes) - len(found) > others:
                take(group, part)
                break
    for part in wanted:
        if not held[part]:
            take(min((group for group in order if group not in found), key=sizes.__getitem__), part)
    return [found.get(group, PARTS[0]) for group in groups]
