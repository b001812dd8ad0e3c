"""What the studies found, in words: whether the claim held here, and the best explanation that the numbers support.

Apart from the studies themselves, so that a word does not make their runs anew; the numbers are on the pages.
"""

from __future__ import annotations

FINDINGS = {
    "ce_clip": (
        "Held in part. CE-CLIP beats NegCLIP on the compositional suite and by far on naming the article, but not "
        "plain fine-tuning, and it shows no loss of zero-shot ability; if anything retrieval pays, by an amount "
        "that these items do not resolve from nothing. NegCLIP is worse than plain fine-tuning. Most of that goes "
        "away with catalog edits in place of its swaps (`negclip catalog`): presumably because a title with two "
        "words swapped is mostly no title any more, and telling it apart teaches word order, for which few "
        "questions of the suite ask. The suite leaves little room: the base is right in nine of ten. NLVR does not "
        "tell the arms apart."
    ),
    "syncmask": (
        "Did not hold here. Masks by the teacher's attention and random masks cannot be told apart, in retrieval or "
        "in recognition, and the intervals leave room for about a point either way. Of the batches, semi-hard ones "
        "are better than the nearest neighbours and than random ones only at naming the colour, by one to two "
        "points; among this many comparisons the smaller of the two may be chance. The teacher that draws the masks "
        "has learnt for a few hundred steps and hardly knows yet where a word is seen, a title of six words leaves "
        "little to choose from, and with 64 pairs a batch the nearest neighbour is presumably seldom the same "
        "product, which is what semi-hard guards against."
    ),
    "simla": (
        "Did not hold here, except for masked patches, which give back about a point of recall on all three shares "
        "of the data, surely so only from photo to title. Matching changes next to nothing. Masked words, the level "
        "that brings most in the paper, cost six to nine points, and keywords one or two from photo to title. Text "
        "role and fused role share their layers, and 180 steps are the very beginning: presumably the loss of "
        "words, far from learnt, pulls the shared layers away from what contrast has just begun to use. Nor do few "
        "data ask for more levels: every level costs about the same on a tenth. At this length a tenth of the "
        "products, shown eleven times, teaches contrast more than all of them shown once; what would come after "
        "more steps, these runs cannot say."
    ),
    "cma_clip": (
        "Held against either modality alone, not against concatenation, which is as accurate and has the better "
        "recall at 90 % precision. Attention between words and patches brings little, the gate next to nothing on "
        "clean data. Where photos are wrong the gate is worth two to three points over fixed halves, and no more "
        "than concatenation. Where titles are wrong every arm that reads them falls below the photo alone: a gate "
        "sees content, and a wrong title looks like any other. Training with such titles mends most of that, for "
        "concatenation as well. One photo and a title of six words leave little to align; the paper's texts are "
        "long."
    ),
    "lincir": (
        "Held against Pic2Word, the sum of embeddings and either part alone; the noise did not. Without it every "
        "seed is better, and what it costs is colour, gender and occasion, not the article: that fits noise that "
        "drowns the small directions in which attributes lie. Both heads were trained on these products, so there "
        "may be little gap between texts and pictures left to bridge; neither was measured. By kind of wish, the "
        "pseudo word wins where the article or the gender changes; a plain sum is better where only the colour or "
        "the occasion does."
    ),
}
