"""Notes of the duels: `make bench` (`run.py`) collects them from the report of pytest."""

import json
import os

import pytest


@pytest.fixture
def duel(record_property, capsys):
    """Function that notes a duel, and prints it; to be called once results agree, before times are judged.

    Its arguments: what is done; the peer; figures of both sides; what one is (a unit in which less is better, unless
    `more` is true); which of how many runs it is; what was compared, and how near the results are; the least or
    largest ratio that the test allows, if any.
    """

    def note(what, peer, *, ours, theirs, unit, of, parity, aim=None, more=False):
        facts = {
            "what": what,
            "peer": peer,
            "ours": ours,
            "theirs": theirs,
            "ratio": ours / theirs,
            "unit": unit,
        }
        facts |= {"of": of, "parity": parity, "aim": aim, "more_is_better": more, "load": os.getloadavg()[0]}
        record_property("duel", json.dumps(facts))
        with capsys.disabled():
            print(
                f"\n{what} beside {peer}: {ours:.3g} / {theirs:.3g} {unit}, {of}: {ours / theirs:.2f} ({parity})"
            )

    return note
