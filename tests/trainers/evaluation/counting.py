"""An independent word aligner in plain Python, to check the package's counts against."""


def count(
    reference: list[str], hypothesis: list[str], substitution: int = 1, gap: int = 1
) -> tuple[int, int, int, int]:
    """Hits, substitutions, deletions and insertions of a cheapest alignment; sclite's weights are 4 and 3.

    Of alignments of equal cost the one with the most hits is taken.
    """
    best: list[list[tuple[int, int, tuple[int, int, int, int]]]] = []
    for i in range(len(reference) + 1):
        row: list[tuple[int, int, tuple[int, int, int, int]]] = []
        for j in range(len(hypothesis) + 1):
            if not i and not j:
                row.append((0, 0, (0, 0, 0, 0)))
                continue
            options = []
            if i and j:
                cost, _, (h, s, d, n) = best[i - 1][j - 1]
                equal = reference[i - 1] == hypothesis[j - 1]
                counts = (h + 1, s, d, n) if equal else (h, s + 1, d, n)
                options.append((cost + (0 if equal else substitution), -counts[0], counts))
            if i:
                cost, _, (h, s, d, n) = best[i - 1][j]
                options.append((cost + gap, -h, (h, s, d + 1, n)))
            if j:
                cost, _, (h, s, d, n) = row[j - 1]
                options.append((cost + gap, -h, (h, s, d, n + 1)))
            row.append(min(options))
        best.append(row)
    return best[-1][-1][2]


def sclite_count(reference: list[str], hypothesis: list[str]) -> tuple[int, int, int, int]:
    """Counts with the weights of NIST's sclite: substitution 4, insertion and deletion 3."""
    return count(reference, hypothesis, substitution=4, gap=3)
