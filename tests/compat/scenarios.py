"""What is sent to both servers: the cases of every opcode, and random mixes of them.

What may not be sent to Apache ZooKeeper is refused by the builders in ops.py.

ALLOWED differences, and why:

- A multi that does not decode: ZooKeeper 3.9.5 uses a zxid up for it, later versions do not; the answer is compared,
  the zxid is not (`step_loose`).
- How many replacement characters a malformed piece of UTF-8 becomes: runs of them compare as one, and no two paths
  that differ only in that are watched.

Not sent, because ZooKeeper's answer is an accident nobody can want: a null path to the watch operations (taken as a
key), the number of all children of the empty path (counts itself), a null SASL token (drops the connection).
"""

import connections
import nodes
from differ import Difference
from mix import EVEN, WATCHFUL, WRITING, Mix

CASES = [
    nodes.predefined,
    nodes.paths_everywhere,
    nodes.acls_everywhere,
    nodes.auth_everywhere,
    nodes.flags_everywhere,
    nodes.data_everywhere,
    nodes.sequences,
    nodes.multis,
    connections.watches,
    connections.catch_up,
    connections.handshakes,
    connections.frames,
    nodes.quotas,
]


def run_case(differ, rng, options, case, *more):
    """One scenario from its begin; a difference that leaves nothing to compare ends it."""
    differ.begin(case.__name__, keep_going=True)
    try:
        case(differ, rng, options, *more)
    except Difference:
        pass


def run_all(differ, rng, options, mixes, steps, only=None):
    """Every case once, then `mixes` random scenarios of `steps` steps each."""
    for case in CASES:
        if not only or case.__name__ in only:
            run_case(differ, rng, options, case)
    if only and "mix" not in only:
        return
    for number in range(mixes):
        weights, name = rng.choice(((EVEN, "even"), (WATCHFUL, "watchful"), (WRITING, "writing")))
        differ.begin(f"mix {number} ({name})")
        try:
            Mix(differ, rng, options, number, weights).run(steps)
        except Difference:
            pass
