"""Preference pairs: the record, readers for files and data sets, and the check.

record        PreferencePair, the one record that every later stage takes
sources       a data name -> rows with their places          (a kind of file: one reader, one table line)
formats       a row -> a pair: canonical, TRL, HH, PKU ...   (a format: one reader, one table line)
fields        checked values out of a row
columns       columns of other names: the user's mapping, prompts that would be left unread
mend          pairs annotated twice: conflicts and duplicates decided
load          rows -> LoadedPairs, with every dropped or changed row counted
control       control tokens in text: find, strip
reasoning     what a model thinks before it answers: take apart, drop
rendering     a conversation -> its text, as the chat template writes it
bounds        how much a chat template may make and take
check         LoadedPairs -> CheckReport                     (a check: one function, one table line)
check_data    what the checks look at
clean         `bdpo data clean`: the mended set as a file, with a report
check_report  the report, as a table and as plain values
overlap       the same or nearly the same texts
refusals      whether a reply opens as a refusal
safedpo       SafeDPO's data step
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdpo.later import later

if TYPE_CHECKING:
    from bdpo.pairs.check import check_pairs
    from bdpo.pairs.check_report import CheckReport, Finding
    from bdpo.pairs.control import control_tokens, found_control_tokens, strip_control_tokens
    from bdpo.pairs.load import LoadedPairs, load_pairs, pairs_from_rows, write_pairs
    from bdpo.pairs.mend import Decision, Mended, mend_pairs
    from bdpo.pairs.record import Message, PreferencePair
    from bdpo.pairs.safedpo import pairs_for_loss, safedpo_pairs

__all__ = [
    "CheckReport",
    "Decision",
    "Finding",
    "LoadedPairs",
    "Mended",
    "Message",
    "PreferencePair",
    "check_pairs",
    "control_tokens",
    "found_control_tokens",
    "load_pairs",
    "mend_pairs",
    "pairs_for_loss",
    "pairs_from_rows",
    "safedpo_pairs",
    "strip_control_tokens",
    "write_pairs",
]

__getattr__ = later(
    __name__,
    {
        "check": ["check_pairs"],
        "check_report": ["CheckReport", "Finding"],
        "control": ["control_tokens", "found_control_tokens", "strip_control_tokens"],
        "load": ["LoadedPairs", "load_pairs", "pairs_from_rows", "write_pairs"],
        "mend": ["Decision", "Mended", "mend_pairs"],
        "record": ["Message", "PreferencePair"],
        "safedpo": ["pairs_for_loss", "safedpo_pairs"],
    },
)
