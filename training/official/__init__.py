"""Official benchmarks, by the name that commands use and the folder their files lie in. One file and one line each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from training.official.contract import Official

MODULES: dict[str, str] = {  # name: file in training/benchmarks, whose BENCHMARKS hold an `Official` of that name
    "vg_relation": "aro",
    "vg_attribution": "aro",
    "coco_order": "aro",
    "flickr30k_order": "aro",
    "valse": "valse",
    "vl_checklist": "vl_checklist",
    "sugarcrepe": "sugarcrepe",
    "sugarcrepe_pp": "sugarcrepe_pp",
    "winoground": "winoground",
    "fashioniq": "fashioniq",
    "cirr": "cirr",
    "circo": "circo",
    "genecis": "genecis",
    "vqa": "vqa",
    "refcoco": "refcoco",
    "nlvr": "nlvr",
    "nlvr2": "nlvr2",
    "snli_ve": "snli_ve",
    "coco_retrieval": "retrieval",
    "flickr30k_retrieval": "retrieval",
    "elevater": "elevater",
    "fashiongen": "fashiongen",
    "fashiongen_category": "fashiongen",
    "fashiongen_subcategory": "fashiongen",
    "upmc_food101": "food101",
    "mrwpa": "mrwpa",
}


class Officials(Mapping[str, Official]):
    """{name: benchmark}; a file is imported when its benchmark is asked for."""

    def __getitem__(self, name: str) -> Official:
        found: dict[str, Official] = importlib.import_module(f"training.benchmarks.{MODULES[name]}").BENCHMARKS
        return found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


OFFICIAL = Officials()
