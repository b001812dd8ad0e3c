"""Other domains: a shop's groceries and clothes photographed at home go all the way with a mapping file and no code."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from small_drops import ROOT

from data import corpus, dataset, dvc, land, record, suites
from data.mapping import read_mapping
from data.negatives import build

SHARED = Path(os.environ.get("FITTINGROOM_SHARED", ROOT.parent / "shared")) / "data"
ROWS = {"grocery": 567, "clothing-in-the-wild": 500}
STAGES = {"dataset": dataset, "negatives": build, "corpus": corpus, "suites": suites}
Row = dict[str, Any]


@dataclass(frozen=True)
class Domain:
    """A workspace in which the drop of one catalog landed and every data stage ran."""

    name: str
    folder: Path

    def table(self, path: str) -> list[Row]:
        return pq.read_table(self.folder / "store" / path).to_pylist()

    def products(self) -> dict[str, Row]:
        return {row["row_id"]: row for row in self.table("dataset/products.parquet")}


def real(name: str) -> Path:
    """The folder of a real catalog; the test is skipped where it is not."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name}: the real catalog is not on this machine (FITTINGROOM_SHARED says where it is)")
    return SHARED / name


def mapping_file(name: str) -> Path:
    return ROOT / "data" / "mappings" / f"{name}.yaml"


def make_repository(folder: Path) -> Path:
    subprocess.run(["git", "init", "-q", folder], check=True)
    dvc.call("init", "-q", cwd=folder)
    for name in ("params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module", params=sorted(ROWS))
def domain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Domain:
    name: str = request.param
    source = real(name)
    folder = make_repository(tmp_path_factory.mktemp(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert land.main(["--mapping", str(mapping_file(name)), str(source)]) == 0
        for stage in STAGES.values():
            assert stage.main([]) == 0
    return Domain(name, folder)


def test_every_row_lands(domain: Domain) -> None:
    (folder,) = (domain.folder / "store" / "drops").glob("[!.]*/")
    landed = record.verify(folder)
    assert landed.summary["accepted"] == landed.summary["rows"] == ROWS[domain.name]
    assert read_mapping(folder / "mapping.yaml") == read_mapping(mapping_file(domain.name))
    rows = pq.read_table(folder / "products.parquet", columns=["catalog", "id", "season", "usage"]).to_pylist()
    assert {(row["catalog"], row["season"], row["usage"]) for row in rows} == {(domain.name, None, None)}
    broken = {check["name"]: check["count"] for check in landed.checks if check["count"]}
    unmapped = [name for name in broken if name.startswith(("season_", "year_", "usage_"))]
    assert unmapped == [], "a column that the catalog does not have is no shortcoming of its rows"
    assert [name for name in broken if name.endswith("_known")] == [], "the mapping lists the catalog's values"


def test_all_stages_pass_their_critical_checks(domain: Domain) -> None:
    for name in STAGES:
        made = record.verify(domain.folder / "store" / name)
        failed = [check["name"] for check in made.checks if check["severity"] == "critical" and not check["passed"]]
        assert failed == []


def test_splits_are_by_family(domain: Domain) -> None:
    products = list(domain.products().values())
    assert len(products) == ROWS[domain.name]
    assert {row["split"] for row in products} == {"train", "val", "test"}
    for key in ("group", "title", "image_key"):
        places = {(row[key], row["split"]) for row in products if row[key] is not None}
        assert len(places) == len({value for value, _ in places}), f"one {key} in two splits"
    if domain.name == "grocery":
        assert len({row["title"] for row in products}) == 81
        assert "Oat Milk" in {row["article_type"] for row in products}


def test_captions_say_what_is_known(domain: Domain) -> None:
    said = {row["derived_caption"] for row in domain.products().values()}
    if domain.name == "grocery":
        assert {"red pepper from the vegetables department", "oat milk from the packaged goods department"} <= said
    else:
        assert {"a photo of a polo shirt", "a photo of a kids' bodysuit"} <= said
    assert all(said)


def test_negatives_are_there_and_none_is_true(domain: Domain) -> None:
    """Read without the generator's own tables: what a negative says instead is neither the product's own value nor a
    kind of it by name (milk is true of sour milk), and no other picture of the same thing is captioned so."""
    products = domain.products()
    negatives = domain.table("negatives/negatives.parquet")
    assert len(negatives) > 100
    assert {products[row["row_id"]]["split"] for row in negatives} == {"train", "val"}
    named: dict[tuple[str, str], set[str]] = {}
    for row in products.values():
        told = named.setdefault((row["catalog"], row["title"] or row["row_id"]), set())
        told |= {text.casefold() for text in (row["title"], row["derived_caption"]) if text}
    for row in negatives:
        product = products[row["row_id"]]
        assert row["negative"].casefold() not in named[product["catalog"], product["title"] or product["row_id"]]
        if row["edit"] == "article":
            new, own = words(row["replacement"]), words(product["article_type"]) | words(product["title"])
            assert not new <= own, row
        if row["edit"] == "colour":
            assert row["replacement"].casefold() != (product["base_colour"] or "").casefold()


def words(text: str | None) -> set[str]:
    """Words without a plural's s, so that `shoes` and `shoe` are one."""
    return {word.removesuffix("s") for word in (text or "").casefold().replace("-", " ").split()}


def test_the_corpus_holds_the_train_captions(domain: Domain) -> None:
    train = [row for row in domain.products().values() if row["split"] == "train"]
    texts = {row["caption"] for row in domain.table("corpus/corpus.parquet")}
    assert {row["derived_caption"].casefold() for row in train} <= {text.casefold() for text in texts}


def test_suites_ask_of_the_test_split(domain: Domain) -> None:
    products = domain.products()
    test = {row_id for row_id, row in products.items() if row["split"] == "test"}
    items = {name: domain.table(f"suites/{name}.parquet") for name in suites.SCHEMAS}
    assert {item["row_id"] for found in items.values() for item in found} <= test
    assert {item["row_id"] for item in items["retrieval"]} == test
    assert len({item["title_key"] for item in items["retrieval"]}) > 10, "too few texts to score R@10"
    assert len(items["compositional"]) > 20
    assert "article_type" in {item["task"] for item in items["attributes"]}
    assert "season" not in {item["task"] for item in items["attributes"]}
    assert all(item["value"] and item["targets"] for item in items["composed"])


def test_one_id_in_two_catalogs_is_two_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same drop under two catalog names, once by the command line and once by its own file."""
    source = real("grocery")
    monkeypatch.chdir(make_repository(tmp_path))
    assert land.main(["--mapping", str(mapping_file("grocery")), str(source)]) == 0
    shutil.copytree(source, tmp_path / "again")
    (tmp_path / "again" / "mapping.yaml").write_text(mapping_with("grocery", catalog="market"), encoding="utf-8")
    assert land.main([str(tmp_path / "again")]) == 0
    assert dataset.main([]) == 0
    rows = pq.read_table("store/dataset/products.parquet").to_pylist()
    assert len(rows) == len({row["row_id"] for row in rows}) == 2 * ROWS["grocery"]
    first, second = (
        {row["id"]: row["split"] for row in rows if row["catalog"] == name} for name in ("grocery", "market")
    )
    assert first == second, "one photo is in one split, whosever catalog shows it"


def mapping_with(name: str, **settings: str) -> str:
    return yaml.safe_dump(yaml.load(mapping_file(name).read_text("utf-8"), Loader=yaml.BaseLoader) | settings)


@pytest.mark.slow
def test_the_starter_towers_learn_it(domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base model, fine-tuning without and with hard negatives, exam: the starter's towers, short settings.

    Of test photos of 15 groceries, or 20 and more captions of clothes, chance names one in fifteen.
    """
    from training import base, evaluate, train

    folder = tmp_path / "workspace"
    shutil.copytree(domain.folder, folder, symlinks=True)
    monkeypatch.chdir(folder)
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    settings["starter"]["base"]["align"] |= {"epochs": 6, "batch": 32, "warmup": 4}
    settings["starter"]["trainer"] |= {"epochs": 1, "batch": 32, "warmup": 2, "log_every": 2}
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert base.main([]) == 0
    assert train.main(["ce_clip"]) == 0
    assert train.main(["clip"]) == 0
    assert evaluate.main(["clip"]) == 0
    found = record.verify(Path("store/evaluations/clip")).summary
    assert found["catalog_retrieval/i2t_R@1"] > 2 / 15
