"""The decision itself, on simulated outcomes: its error rates are what the gate promises."""

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from data.params import UserError, strict
from tests.training.builders import GATE, attribute_items, composed_items, outcomes_of
from training.champion import ENDPOINTS
from training.outcomes import column, outcome_table
from training.verdict import GateConfig, Rule, judge

CONFIG = Rule(draws=1000, primary="compositional", margins={"compositional": 0.02, "catalog_retrieval": 0.02})

SEARCH = GATE["endpoints"]["search"]


def world(generator, n, *, gain, loss=0.0, families=1):
    """Two models on `n` items: the challenger's chance of success is higher by `gain` on the primary benchmark and
    lower by `loss` elsewhere; both share how hard an item is, and `families` items share that, too."""
    units = np.arange(n) // families
    hard = generator.random(units[-1] + 1)[units]

    def model(extra):
        return (generator.random(n) < np.clip(0.2 + 0.6 * hard + extra, 0, 1)).astype(float)

    champion = outcomes_of(model(0), model(0), model(0), units=units)
    challenger = outcomes_of(model(gain), model(-loss), model(-loss), units=units)
    return challenger, champion


def halved(table, keep):
    rows = [int(item) in keep for item in table["item_id"].to_pylist()]
    return table.filter(pa.array(rows))


def by_name(judgement):
    return {f"{c.name} {c.metric}": c for c in judgement.comparisons}


def test_clear_gain_passes():
    judgement = judge(*world(np.random.default_rng(0), 4000, gain=0.1, loss=-0.05), CONFIG)
    assert judgement.verdict == "pass"
    assert judgement.needs_more_items is None
    found = by_name(judgement)["compositional accuracy"]
    assert found.superior
    assert found.non_inferior
    assert found.low < found.difference < found.high
    assert found.difference == pytest.approx(found.challenger - found.champion)
    assert (found.gained - found.lost) / found.n_items == pytest.approx(found.difference)


def test_clear_loss_elsewhere_fails_despite_the_gain():
    judgement = judge(*world(np.random.default_rng(0), 4000, gain=0.1, loss=0.1), CONFIG)
    assert judgement.verdict == "fail"
    assert by_name(judgement)["compositional accuracy"].verdict == "pass"
    assert "more than the margin of 2 points" in judgement.reason


def test_certain_lack_of_gain_on_the_primary_fails():
    generator = np.random.default_rng(0)
    challenger, champion = world(generator, 4000, gain=-0.05, loss=-0.1)
    config = dataclasses.replace(CONFIG, margins={"compositional": 0.2, "catalog_retrieval": 0.02})
    judgement = judge(challenger, champion, config)
    assert judgement.verdict == "fail"
    assert "no better on compositional accuracy" in judgement.reason


def test_too_few_items_are_inconclusive_and_say_how_many():
    judgement = judge(*world(np.random.default_rng(0), 60, gain=0.05), CONFIG)
    assert judgement.verdict == "inconclusive"
    assert judgement.needs_more_items == max(c.needs_more_items or 0 for c in judgement.comparisons)
    assert judgement.needs_more_items > 1000  # two points at a standard error of six and more
    assert f"{judgement.needs_more_items:,} more items" in judgement.reason


def test_identical_outcomes_are_inconclusive_never_a_verdict_on_merit():
    same = world(np.random.default_rng(1), 400, gain=0)[0]
    judgement = judge(same, same, CONFIG)
    assert judgement.verdict == "inconclusive"
    assert all(c.difference == 0 and c.p == 1 for c in judgement.comparisons)


def test_equal_challenger_is_promoted_at_most_alpha_of_the_time():
    """400 seeded worlds in which challenger and champion are equally good, items in families of three."""
    generator = np.random.default_rng(7)
    wide = dataclasses.replace(
        CONFIG, margins={"compositional": 0.5, "catalog_retrieval": 0.5}
    )  # only superiority counts
    verdicts = [judge(*world(generator, 600, gain=0, families=3), wide).verdict for _ in range(400)]
    assert verdicts.count("pass") / 400 <= wide.alpha
    assert verdicts.count("pass") > 0  # the test has power: a gate that never passes would also pass it


def test_truly_worse_challenger_is_called_non_inferior_at_most_alpha_of_the_time():
    """At a true loss of exactly the margin, the interval clears it in about alpha / 2 of the worlds."""
    generator, worlds, cleared = np.random.default_rng(5), 300, 0
    for _ in range(worlds):
        judgement = judge(*world(generator, 500, gain=0.3, loss=CONFIG.margins["catalog_retrieval"]), CONFIG)
        cleared += by_name(judgement)["catalog_retrieval t2i_R@10"].non_inferior
    assert 0 < cleared / worlds <= CONFIG.alpha


def test_halving_the_items_turns_a_pass_into_inconclusive_never_into_fail():
    generator, after = np.random.default_rng(3), []
    while len(after) < 60:
        challenger, champion = world(generator, 900, gain=0.06, loss=-0.06)
        if judge(challenger, champion, CONFIG).verdict == "pass":
            keep = set(generator.choice(900, 450, replace=False).tolist())
            after.append(judge(halved(challenger, keep), halved(champion, keep), CONFIG).verdict)
    assert after.count("fail") == 0
    assert after.count("inconclusive") > 10
    assert after.count("pass") > 0


def test_gain_that_the_blind_control_shares_does_not_count():
    """The challenger gains 300 items, but only where a text-only scorer also succeeds."""
    n = 2000
    blind = np.arange(n) < 1000
    champion = outcomes_of(np.arange(n) % 2, np.ones(n), np.ones(n), blind=blind)
    better = np.where(np.arange(n) < 600, 1.0, np.arange(n) % 2)
    judgement = judge(outcomes_of(better, np.ones(n), np.ones(n), blind=blind), champion, CONFIG)
    found = by_name(judgement)["compositional accuracy"]
    assert found.low > 0
    assert found.p < 1e-9
    assert not found.superior
    assert found.beyond_control["difference"] == 0
    assert found.beyond_control["n_items"] == 1000
    assert judgement.verdict == "inconclusive"
    assert "only where a text-only scorer succeeds as well" in judgement.reason


def test_p_values_are_holm_adjusted_mcnemar():
    """8 gained and 0 lost, 5 and 1, 2 and 2 of 100 items: .0078, .21875, 1 before, times 3, 2, 1 after."""

    def pair(gained, lost):
        return (np.arange(100) < 50 + gained) & (np.arange(100) >= lost), np.arange(100) < 50

    metrics = [pair(8, 0), pair(5, 1), pair(2, 2)]
    judgement = judge(outcomes_of(*(m[0] for m in metrics)), outcomes_of(*(m[1] for m in metrics)), CONFIG)
    assert [c.p_single for c in judgement.comparisons] == pytest.approx([2 / 2**8, 2 * 7 / 2**6, 1])
    assert [c.p for c in judgement.comparisons] == pytest.approx([6 / 2**8, 4 * 7 / 2**6, 1])
    assert [(c.gained, c.lost) for c in judgement.comparisons] == [(8, 0), (5, 1), (2, 2)]


def test_gain_carried_by_few_large_families_is_not_significant():
    """Seven families of ten gain, five single items lose: an interval above zero, but seven coins against five."""
    units = np.concatenate([np.repeat(np.arange(7), 10), np.arange(7, 107)])
    gains, losses = units < 7, (units >= 7) & (units < 12)
    champion = outcomes_of(~gains, np.ones(170), np.ones(170), units=units)
    judgement = judge(outcomes_of(~losses, np.ones(170), np.ones(170), units=units), champion, CONFIG)
    found = by_name(judgement)["compositional accuracy"]
    assert found.low > 0
    assert found.p_single == pytest.approx(2 * sum(math.comb(12, k) for k in range(6)) / 2**12)
    assert not found.superior
    assert judgement.verdict == "inconclusive"


def test_gain_does_not_pass_while_a_loss_elsewhere_is_open():
    judgement = judge(*world(np.random.default_rng(0), 300, gain=0.25), CONFIG)
    found = by_name(judgement)
    assert found["compositional accuracy"].verdict == "pass"
    assert not found["catalog_retrieval t2i_R@10"].non_inferior
    assert judgement.verdict == "inconclusive"
    assert "a loss of more than 2 points is not excluded" in judgement.reason


def test_items_needed_beyond_the_control_count_those_it_solves():
    """A gain on 3 of the 100 items in 1,000 that the control misses: every ten new items bring one that helps."""
    n = 1000
    blind = np.arange(n) >= 100
    champion = outcomes_of(np.arange(n) >= 700, np.ones(n), np.ones(n), blind=blind)
    challenger = outcomes_of((np.arange(n) >= 400) | (np.arange(n) < 3), np.ones(n), np.ones(n), blind=blind)
    found = by_name(judge(challenger, champion, CONFIG))["compositional accuracy"]
    assert found.low > 0
    assert found.beyond_control["low"] <= 0
    error = math.sqrt((3 + 2 - (3 / 102) ** 2 * 102) / 102**2)  # 3 gains and the two added items among 102
    z = 1.959964 + 0.841621
    assert found.needs_more_items == pytest.approx(10 * (100 * (z * error / 0.03) ** 2 - 100), rel=0.05)


def test_primary_benchmark_with_two_metrics_needs_one_gain():
    """t2i gains 200 of 2,000; i2t loses 40 for certain, which is within the margin of ten points."""
    n = 2000
    config = dataclasses.replace(
        CONFIG, primary="catalog_retrieval", margins={"compositional": 0.02, "catalog_retrieval": 0.1}
    )
    half = np.arange(n) % 2
    better, worse = np.where(np.arange(n) < 400, 1, half), np.where(np.arange(n) < 80, 0, half)
    judgement = judge(outcomes_of(np.ones(n), better, worse), outcomes_of(np.ones(n), half, half), config)
    assert by_name(judgement)["catalog_retrieval i2t_R@10"].high < 0
    assert judgement.verdict == "pass"
    assert "catalog retrieval t2i_R@10" in judgement.reason


def test_order_of_rows_does_not_matter():
    challenger, champion = world(np.random.default_rng(0), 300, gain=0.1, families=3)
    order = np.random.default_rng(1).permutation(challenger.num_rows)
    assert judge(challenger.take(order), champion, CONFIG) == judge(challenger, champion, CONFIG)


class TestOutcomesThatCannotBeCompared:
    def setup_method(self):
        self.challenger, self.champion = world(np.random.default_rng(0), 50, gain=0.1)

    def test_missing_item(self):
        with pytest.raises(UserError, match="not scored on the same items"):
            judge(self.challenger.slice(1), self.champion, CONFIG)

    def test_other_units(self):
        index = self.challenger.column_names.index("unit")
        moved = self.challenger.set_column(index, "unit", pa.array(column(self.challenger, "unit") + 1))
        with pytest.raises(UserError, match=r"not scored on the same items \(unit"):
            judge(moved, self.champion, CONFIG)

    def test_missing_metric(self):
        kept = self.champion.filter(pa.array([m != "i2t_R@10" for m in self.champion["metric"].to_pylist()]))
        with pytest.raises(UserError, match="the champion's outcomes lack it"):
            judge(self.challenger, kept, CONFIG)

    def test_nan_is_never_a_score(self):
        values = column(self.challenger, "outcome").copy()
        values[3] = np.nan
        index = self.challenger.column_names.index("outcome")
        with pytest.raises(UserError, match="the challenger has outcomes that are not numbers"):
            judge(self.challenger.set_column(index, "outcome", pa.array(values)), self.champion, CONFIG)

    def test_control_that_solves_everything(self):
        ones = np.ones(50)
        table = outcomes_of(ones, ones, ones, blind=ones)
        with pytest.raises(UserError, match="proves nothing about seeing"):
            judge(table, table, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.7}, "alpha"),
        ({"draws": 10}, "draws"),
        ({"marigns": {}}, "marigns: unknown setting"),
        ({"endpoints": {"search": SEARCH}}, "one block is needed for each of attributes, compose, search"),
        ({"endpoints": GATE["endpoints"] | {"shop": SEARCH}}, "and nothing else"),
        ({"search": {"margins": {"compositional": 0.01}}}, r"endpoints.search: margins: .* catalog_retrieval"),
        ({"search": {"margins": SEARCH["margins"] | {"attributes": 0.1}}}, "endpoints.search: margins.*nothing else"),
        ({"search": {"margins": SEARCH["margins"] | {"catalog_retrieval": 0.0}}}, "margins.catalog_retrieval"),
        ({"search": {"primary": "attributes"}}, "endpoints.search: primary"),
        ({"search": {"primry": "compositional"}}, "Did you mean `primary`"),
    ],
)
def test_settings_that_make_no_sense_name_the_key(change, message):
    settings = {**GATE, **{key: value for key, value in change.items() if key != "search"}}
    if "search" in change:
        settings["endpoints"] = settings["endpoints"] | {"search": SEARCH | change["search"]}
    with pytest.raises(UserError, match=message):
        strict(GateConfig, settings, "params.yaml: gate")


def test_a_model_that_learnt_the_commonest_class_is_not_promoted():
    """Champion and challenger guess; the challenger always guesses the commonest class, which is right more often."""
    n = 4000
    generator = np.random.default_rng(0)
    common, guess = generator.random(n) < 0.5, generator.random(n) < 0.25
    items = attribute_items(n)

    def sat(outcome):
        made = (
            outcome_table("attributes", m, items, o, np.ones(n))
            for m, o in (("accuracy", outcome), ("blind_accuracy", common))
        )
        return pa.concat_tables(made)

    judgement = judge(sat(common), sat(guess), strict(GateConfig, GATE, "gate").rule("attributes"))
    assert by_name(judgement)["attributes accuracy"].low > 0.2
    assert judgement.verdict == "fail"
    assert "only where a guess of the commonest class succeeds without looking" in judgement.reason


def test_each_endpoint_is_judged_by_its_own_benchmarks():
    """Both models sat everything; only the benchmarks of the rule's endpoint are compared, by its own margins."""
    rules = strict(GateConfig, GATE, "params.yaml: gate")
    assert set(rules.endpoints) == set(ENDPOINTS)
    items = composed_items(400)
    better, worse = (
        outcome_table("composed_retrieval", "R@10", items, np.arange(400) < k, np.ones(400)) for k in (300, 200)
    )
    search = world(np.random.default_rng(0), 400, gain=-0.5, loss=0.5)
    judgement = judge(
        *(pa.concat_tables(pair) for pair in zip(search, (better, worse), strict=True)), rules.rule("compose")
    )
    assert judgement.verdict == "pass"
    assert list(by_name(judgement)) == ["composed_retrieval R@10"]
    assert by_name(judgement)["composed_retrieval R@10"].beyond_control is None
    assert judge(*search, rules.rule("search")).verdict == "fail"
