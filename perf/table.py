"""Rows "PEER WHAT NUMBER" on standard input become a table of medians, with ratios between peers.

Arguments: the peers, in their order; then ratios as ONE/OTHER; then musts as WHAT=TEXT, each of them optional.
"""
import collections
import statistics
import sys

words = sys.argv[1:]
ratios = [word.split("/") for word in words if "/" in word and "=" not in word]
musts = dict(word.split("=", 1) for word in words if "=" in word)
peers = [word for word in words if "/" not in word and "=" not in word]

rows = collections.defaultdict(lambda: collections.defaultdict(list))
for line in sys.stdin:
    fields = line.split()
    if len(fields) == 3:
        rows[fields[1]][fields[0]].append(float(fields[2]))

heads = ["what", *peers, *("/".join(ratio) for ratio in ratios), *(["must"] if musts else [])]
print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
for what, measured in rows.items():
    at = {peer: statistics.median(values) for peer, values in measured.items()}
    cells = [f"{at[peer]:g}" if peer in at else "-" for peer in peers]
    cells += [f"{at[one] / at[other]:.2f}" if at.get(one) and at.get(other) else "-" for one, other in ratios]
    cells += [musts.get(what, "-")] if musts else []
    print(f"| {what} | {' | '.join(cells)} |")
