"""Tables and checks of generated negatives, for the training set and for the suites alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from data.negatives.blind import blind_table
from data.negatives.captions import CAPTION_KINDS
from data.negatives.edits import EDITS, seed_of
from data.negatives.filters import REASONS
from data.negatives.generate import Generator
from data.negatives.hard_rule import violations
from data.negatives.swaps import KINDS
from data.stage import Run

Row = Mapping[str, Any]
BLIND_LIMIT = 0.60  # accuracy of a reader without the picture above which the negatives give themselves away
LEAST_VALID = {"attribute": 0.5, "object": 0.3}  # share of captions with a valid negative; relation has no floor


def count_table(negatives: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows {caption_kind, edit_type, edit, negatives, captions} of what was written."""
    counts: Counter[tuple[str, str]] = Counter()
    captions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in negatives:
        counts[row["caption_kind"], row["edit"]] += 1
        captions[row["caption_kind"], row["edit"]].add(row["row_id"])
    return [
        {"caption_kind": kind, "edit_type": EDITS[edit], "edit": edit, "negatives": counts[kind, edit],
         "captions": len(captions[kind, edit])}
        for kind in CAPTION_KINDS for edit in EDITS
    ]  # fmt: skip


def tally_table(generator: Generator) -> list[dict[str, Any]]:
    """What became of the drafts, per caption kind and edit: kept, or refused by which filter, and the refused share."""
    rows = []
    for (kind, edit), found in generator.tally.items():
        drafts = sum(found[reason] for reason in (*REASONS, "kept"))
        refused = {reason: found[reason] for reason in REASONS}
        share = round(1 - found["kept"] / drafts, 4) if drafts else 0.0
        rows.append({
            "caption_kind": kind, "edit": edit, "captions": found["captions"], "drafts": drafts, "kept": found["kept"],
            **refused, "refused_share": share,
        })  # fmt: skip
    return rows


def share_table(swaps: pa.Table, captions: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Rows {caption_kind, captions, with_swap} and the share of captions whose negatives have each kind of span."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for caption, kind in zip(swaps["caption"].to_pylist(), swaps["kind"].to_pylist(), strict=True):
        kinds[caption].add(kind)
    return [
        {"caption_kind": name, "captions": len(texts),
         "with_swap": round(sum(text in kinds for text in texts) / max(1, len(texts)), 4),
         **{kind: round(sum(kind in kinds.get(text, ()) for text in texts) / max(1, len(texts)), 4) for kind in KINDS}}
        for name, texts in captions.items()
    ]  # fmt: skip


def draw_one(negatives: Iterable[Row], seed: int) -> list[Row]:
    """One candidate per caption and edit type, as a training epoch draws them."""
    held: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in negatives:
        held[row["row_id"], row["caption_kind"], row["edit_type"]].append(row)
    return [found[seed_of(seed, *key) % len(found)] for key, found in held.items()]


def check_hard_rule(run: Run, negatives: Iterable[Row], products: Sequence[Row]) -> None:
    """Every negative read again by the brute-force audit."""
    wrong = [f"{row_id}: {what}" for what, row_id in violations(negatives, products)]
    run.check(
        "no_negative_is_true", not wrong, severity="critical", count=len(wrong), examples=wrong,
        description="No negative may be true of a product with the same picture or title (read again by brute force).",
    )  # fmt: skip


def check_coverage(run: Run, valid: Mapping[str, int], captions: int) -> None:
    """Enough captions have a negative of each type that this catalog supports."""
    shares = {kind: round(valid.get(kind, 0) / max(captions, 1), 4) for kind in ("relation", *LEAST_VALID)}
    short = [kind for kind, least in LEAST_VALID.items() if shares[kind] < least]
    run.check(
        "negatives_cover_the_captions", not short, severity="warning", count=len(short), examples=short,
        description=f"Share of captions with a negative of the type is at least {LEAST_VALID}.", shares=shares,
    )  # fmt: skip


def check_blind(run: Run, learnt: Iterable[Row], examined: Iterable[Row], where: str) -> None:
    """A reader without the picture must not tell captions from negatives."""
    table, scores = blind_table(learnt, examined)
    run.table("blind reader", table)
    run.summary(blind_words=scores["words"], blind_word_pairs=scores["word_pairs"])
    run.check(
        "a_blind_reader_cannot_tell", max(scores.values()) <= BLIND_LIMIT, severity="warning",
        description=f"A bag of words (or word pairs) prefers the caption in at most {BLIND_LIMIT:.0%} of {where}.",
        accuracy=scores,
    )  # fmt: skip
