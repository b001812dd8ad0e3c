"""Tables and checks of generated negatives, for the training set and for the suites alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.negatives.audit import AuditConfig, Estimate, Verdict, estimate, judge, sample, table
from data.negatives.blind import blind_table
from data.negatives.captions import CAPTION_KINDS
from data.negatives.edits import EDITS, seed_of
from data.negatives.examples import draw_examples, draw_verdicts
from data.negatives.examples_page import write_page
from data.negatives.filters import REASONS
from data.negatives.generate import Generator
from data.negatives.hard_rule import violations
from data.negatives.intervals import wilson
from data.negatives.labels import read_labels, settled
from data.negatives.summary import Tally, markdown, summary_table
from data.negatives.swaps import KINDS
from data.negatives.witnesses import Witnesses
from data.stage import Run

Row = Mapping[str, Any]
BLIND_LIMIT = 0.55  # accuracy of a reader without the picture above which the negatives give themselves away
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


def check_blind(run: Run, learnt: Iterable[Row], examined: Iterable[Row], where: str) -> list[dict[str, Any]]:
    """A reader without the picture must not tell captions from negatives. Returns its table."""
    found, scores = blind_table(learnt, examined)
    run.table("blind reader", found)
    run.summary(blind_words=scores["words"], blind_word_pairs=scores["word_pairs"])
    above = [row["edit"] for row in found if _surely_above(row)]
    run.check(
        "a_blind_reader_cannot_tell", scores["words"] <= BLIND_LIMIT and not above, severity="warning",
        description=f"A bag of words with lengths prefers the caption in at most {BLIND_LIMIT:.0%} of {where}, and no "
        "bag of words or word pairs surely does in more, be it in all or in one edit.",
        count=len(above), examples=above, accuracy=scores,
    )  # fmt: skip
    return found


def _surely_above(row: Row) -> bool:
    """Whether more than chance takes the blind accuracy of an edit over the limit."""
    return any(wilson(row[name] * row["pairs"], row["pairs"]).low > BLIND_LIMIT for name in ("words", "word_pairs"))


def check_error(run: Run, found: Estimate, verdicts: Sequence[Verdict], config: AuditConfig) -> None:
    """The audited share of true negatives is small, in all and surely not larger in one edit."""
    run.table("audit: negatives that are true", found.table())
    error, limit = found.whole.error, config.max_error
    above = [part.edit for part in found.edits if part.error.low > limit]
    true = [f"{v.row['row_id']}: {v.row['negative']} ({', '.join(v.witnesses) or 'label'})" for v in verdicts if v.true]
    run.summary(
        audit_judged=found.whole.judged, audit_true=found.whole.true, audit_labelled=found.whole.labelled,
        audit_error=round(error.share, 5), audit_bound=round(error.high, 5),
    )  # fmt: skip
    run.check(
        "audited_error_is_small", found.whole.bound <= limit and not above, severity="critical", count=len(true),
        examples=true, description=f"The upper limit (Wilson, 95 %) of the share of negatives that are true is at most "
        f"{limit:.1%} (the share itself, where all were judged), and the lower limit of no edit is above it.",
        share=round(error.share, 5), low=round(error.low, 5), high=round(error.high, 5), edits_above=above,
    )  # fmt: skip


def report_audit(
    run: Run, negatives: Sequence[Row], products: Sequence[Row], *, images: Path, config: AuditConfig,
    tally: Tally | None, learnt: Iterable[Row], examined: Iterable[Row], where: str,
) -> Estimate:  # fmt: skip
    """Judge negatives, write what was found and add the checks.

    Args:
        negatives: rows with row_id, caption_kind, caption, edit_type, edit and negative.
        products: rows of the dataset's `products.parquet`, all splits.
        images: the dataset's `images.parquet`.
        tally: what became of the generator's drafts; None leaves the reject rates out.
        learnt, examined: the blind reader's lessons and questions, one negative per caption, of different products.
        where: what `examined` are, in words.
    """
    check_hard_rule(run, negatives, products)
    drawn = sample(negatives, config.per_edit, config.seed)
    verdicts = judge(drawn, Witnesses(products, images), settled(read_labels(Path(config.labels))))
    found = estimate(verdicts, Counter(row["edit"] for row in negatives))
    pq.write_table(table(verdicts), run.out / "audit.parquet", compression="zstd")
    check_error(run, found, verdicts, config)
    blind = check_blind(run, learnt, examined, where)
    whole = summary_table(found, {row["edit"]: row["edit_type"] for row in negatives}, tally, blind)
    run.table("hard negatives", whole)
    (run.out / "negatives.md").write_text(markdown(whole), encoding="utf-8")
    by_id = {row["row_id"]: row for row in products}
    write_page(run.out / "examples.html", verdicts, by_id, images)
    draw_examples(run.out / "examples.png", negatives, by_id, images, "Hard negatives")
    draw_verdicts(run.out / "audit.png", verdicts, by_id, images)
    run.picture("examples", run.out / "examples.png")
    run.picture("audit", run.out / "audit.png")
    run.log(f"{found.whole.judged:,} judged: {found.whole.error.share:.2%} true, at most {found.whole.error.high:.2%}")
    return found
