"""VQAv2's files in small: photos of one colour, plain or with white squares, and what ten people said about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {
    "dark red": (130, 0, 0), "dark blue": (0, 0, 130), "pale red": (255, 150, 150), "pale blue": (150, 150, 255),
}  # fmt: skip
CANDIDATES = ["yes", "no", "1", "2", "green", *COLOURS]
WORDS = ["what", "colour", "is", "the", "wall", "how", "many", "squares", "dark", "pale", "red", "blue", "green",
         "yes", "no", "1", "2"]  # fmt: skip
SIDE = 32
TRAIN, VAL, TEST = range(300, 348), range(1, 9), range(21, 25)  # no numbers of other fixtures' photos


def photo(number: int) -> tuple[np.ndarray, str, int]:
    """Pixels, the wall's colour, and how many squares are on it."""
    colour, squares = list(COLOURS)[number % 4], 1 + number // 4 % 2
    chance = np.random.default_rng(number)
    pixels = np.array(COLOURS[colour]) + chance.integers(-12, 12, (SIDE, SIDE, 3))
    for square in range(squares):
        pixels[8 + 16 * square :, 8:][:8, :8] = 250
    return pixels.clip(0, 255).astype(np.uint8), colour, squares


def asked(number: int) -> list[tuple[str, str, str, list[str]]]:
    """(question, its type, the answer's type, ten answers) about a photo."""
    _, colour, squares = photo(number)
    dark, other = colour.startswith("dark"), colour.replace("dark", "pale").replace("pale ", "")
    agreed = ["yes" if dark else "no"] * 8 + ["no" if dark else "yes"] * 2
    return [
        ("What colour is the wall?", "what colour", "other", [colour] * 7 + [f"A {colour}."] * 2 + [other]),
        ("Is the wall dark?", "is the", "yes/no", agreed),
        ("How many squares?", "how many", "number", [str(squares)] * 10),
    ]


def vqa(root: Path) -> None:
    """Three questions about each of 8 photos, 48 others to train on, and 4 for the test server."""
    for split, numbers in (("val", VAL), ("train", TRAIN)):
        questions: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in numbers:
            path = root / f"coco/{split}2014/COCO_{split}2014_{number:012d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo(number)[0]).save(path, quality=95)
            for place, (question, kind, answer_type, answers) in enumerate(asked(number)):
                ids = {"question_id": 1000 * number + place, "image_id": number}
                questions.append({**ids, "question": question})
                annotations.append({
                    **ids, "question_type": kind, "answer_type": answer_type, "multiple_choice_answer": answers[0],
                    "answers": [
                        {"answer": answer, "answer_confidence": "yes", "answer_id": i}
                        for i, answer in enumerate(answers, start=1)
                    ],
                })  # fmt: skip
        folder = root / "vqa"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (
            (f"v2_OpenEnded_mscoco_{split}2014_questions.json", {"questions": questions, "data_subtype": split}),
            (f"v2_mscoco_{split}2014_annotations.json", {"annotations": annotations, "data_subtype": split}),
        ):
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    test = [{"question_id": 10 * number, "image_id": number, "question": asked(number)[0][0]} for number in TEST]
    for number in TEST:
        path = root / f"coco/test2015/COCO_test2015_{number:012d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number)[0]).save(path, quality=95)
    (root / "vqa" / "v2_OpenEnded_mscoco_test2015_questions.json").write_text(json.dumps({"questions": test}))
    (root / "vqa" / "answer_list.json").write_text(json.dumps(CANDIDATES), encoding="utf-8")


FIXTURES: dict[str, Callable[[Path], None]] = {"vqa": vqa}
