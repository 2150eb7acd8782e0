"""The search: in which order files are tried, when it ends, and what it ends with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import BackendError
from plumbline.quantization.budgeted import notes_of, refuse_over_budget, trials_table
from plumbline.quantization.recipes import Block, Quantizer, Recipe, Written
from plumbline.quantization.search import Drop, Limits, most_in_float, search

METHODS, OPERATORS = ("minmax", "mse", "coarse"), ("all", "convolutions")
LIMITS = Limits(max_drop=0.5, max_drop_upper=1.0, max_float_share=0.5, max_trials=10)


def blocks_of(count: int) -> tuple[Block, ...]:
    return tuple(Block(f"b{number}", 1 / count) for number in range(count))


class Network:
    """A network whose losses are a sum over its blocks, so that a search has a right answer."""

    def __init__(self, tmp_path, losses, by_method=None, by_operators=None, num_int8=None):
        self.losses = losses
        self.blocks = blocks_of(len(losses))
        self.by_method = by_method or {}
        self.by_operators = by_operators or {}
        self.num_int8 = num_int8
        self.tried, self.ranked, self.told = [], [], []
        self.work = tmp_path

    def write(self, folder, recipe):
        self.tried.append(recipe)
        (folder / "file").write_text("x")
        count = len(self.blocks) - len(recipe.float_blocks)
        names = tuple(recipe.float_blocks)
        return Written(
            len(self.blocks), count if self.num_int8 is None else self.num_int8, names, {"made": recipe.method}
        )

    def drop(self, folder):
        assert (folder / "file").is_file()
        recipe = self.tried[-1]
        lost = sum(
            loss for block, loss in zip(self.blocks, self.losses, strict=True) if block.name not in recipe.float_blocks
        )
        lost += self.by_method.get(recipe.method, 0.0) + self.by_operators.get(recipe.operators, 0.0)
        return Drop(0.6 - lost / 100, lost, lost + 0.2)

    def rank(self, recipe):
        self.ranked.append(recipe)
        order = sorted(range(len(self.losses)), key=lambda number: -self.losses[number])
        return tuple(self.blocks[number].name for number in order)

    def search(self, limits=LIMITS):
        quantizer = Quantizer(METHODS, OPERATORS, self.blocks, self.write)
        return search(quantizer, self.drop, self.rank, limits, work=self.work, tell=self.told.append)


def test_the_first_file_inside_ends_the_search(tmp_path):
    network = Network(tmp_path, [0.1] * 4)
    found = network.search()
    assert network.tried == [Recipe("minmax", "all")]
    assert found.best.inside
    assert (found.best.number, found.best.step) == (1, "method")
    assert not network.ranked, "blocks are ordered where they are needed alone"
    assert network.told == [
        "trial 1: minmax, all: 0.5960, -0.40 points (at worst -0.60), inside the budget",
    ]


def test_methods_come_before_operators_and_those_before_blocks(tmp_path):
    network = Network(tmp_path, [0.3, 0.3, 0.9, 0.3], {"minmax": 0.2, "mse": 0.1, "coarse": 3.0}, {"all": 0.3})
    found = network.search()
    steps = [(trial.step, trial.recipe.method, trial.recipe.operators) for trial in found.trials]
    assert steps[:4] == [
        ("method", "minmax", "all"),
        ("method", "mse", "all"),
        ("method", "coarse", "all"),
        ("operators", "mse", "convolutions"),
    ]
    # The best of what went before is what blocks are taken from.
    assert network.ranked == [Recipe("mse", "convolutions")]
    assert {step for step, *_ in steps[4:]} == {"blocks"}
    # 1.9 points in int8 all; 1.0 without the worst block, 0.7 without two: no more than two may stay in float.
    assert not found.best.inside
    assert found.best.recipe.float_blocks == ("b0", "b2")


def test_a_bad_start_ends_inside(tmp_path):
    network = Network(tmp_path, [0.05] * 4, {"coarse": 3.0})
    found = network.search(Limits(0.5, 1.0, 0.5, 10, first_method="coarse"))
    assert [trial.recipe.method for trial in found.trials] == ["coarse", "minmax"]
    assert found.best.inside


def test_an_unknown_first_method_is_refused(tmp_path):
    with pytest.raises(BackendError, match="first_method is 'median', expected auto or one of: minmax, mse, coarse"):
        Network(tmp_path, [0.1]).search(Limits(0.5, 1.0, 0.5, 10, first_method="median"))


@given(
    losses=st.lists(st.floats(0, 0.3), min_size=1, max_size=40),
    budget=st.floats(0, 2),
    max_trials=st.integers(1, 30),
    share=st.floats(0, 0.9),
)
def test_fewest_blocks_in_float_and_never_more_trials_than_allowed(tmp_path_factory, losses, budget, max_trials, share):
    network = Network(tmp_path_factory.mktemp("work"), losses)
    found = network.search(Limits(budget, 100.0, share, max_trials))
    assert len(found.trials) == len(network.tried) <= max_trials
    assert len({(t.recipe.method, t.recipe.operators, t.recipe.float_blocks) for t in found.trials}) == len(
        found.trials
    )
    worst_first = sorted(losses, reverse=True)
    most = most_in_float(network.rank(Recipe("minmax", "all")), network.blocks, share)
    enough = [count for count in range(most + 1) if sum(worst_first[count:]) <= budget]
    if found.best.inside:
        assert found.best.drop.drop <= budget
        assert len(found.best.recipe.float_blocks) <= most
        if max_trials == 30:  # enough for all methods, operators, and a bisection to its end
            expected = enough[0]
            got = len(found.best.recipe.float_blocks)
            assert abs(sum(worst_first[got:]) - sum(worst_first[expected:])) < 1e-9
    else:
        assert found.best.drop.drop == min(trial.drop.drop for trial in found.trials)
        if max_trials == 30:
            assert not [count for count in enough if sum(worst_first[count:]) <= budget - 1e-9]


def test_the_upper_end_of_the_interval_has_a_limit_of_its_own(tmp_path):
    network = Network(tmp_path, [0.1])
    found = network.search(Limits(0.5, 0.25, 0.0, 10))
    assert found.best.reason == "up to 0.30 points may be lost (upper end of the interval on val), more than 0.25"


def test_what_is_not_int8_in_fact_is_not_inside(tmp_path):
    network = Network(tmp_path, [0.0] * 8, num_int8=1)
    found = network.search()
    assert found.best.reason == "only 1 of 8 convolutions run in int8"
    with pytest.raises(
        BackendError, match=r"target 'x': none of 5 int8 files is inside the budget; the best .*only 1 of 8"
    ):
        refuse_over_budget(found, "x")


def test_a_drop_that_is_no_number_is_outside(tmp_path):
    network = Network(tmp_path, [float("nan")])
    assert not network.search().best.inside


def test_the_table_has_a_row_for_each_trial_and_one_for_fp32(tmp_path):
    found = Network(tmp_path, [0.4, 0.4, 0.05, 0.05]).search()
    table = trials_table(0.6, found.trials)
    assert table["trial"].tolist() == list(range(len(found.trials) + 1))
    assert table["step"].tolist()[:2] == ["fp32", "method"]
    assert table["num_float_blocks"].tolist() == [0, *(len(trial.recipe.float_blocks) for trial in found.trials)]
    assert table["inside"].tolist() == [1, *(int(trial.inside) for trial in found.trials)]
    assert 0 < sum(trial.inside for trial in found.trials) < len(found.trials)
    assert table.loc[table["trial"] == found.best.number, "int8_share"].item() == found.best.int8_share


def test_notes_tell_how_the_file_was_found(tmp_path):
    found = Network(tmp_path, [0.1, 0.1]).search()
    notes = notes_of(found, "map50_95", aware_steps=300)
    assert notes["made"] == "minmax", "what the backend says stays"
    assert (notes["method"], notes["operators"], notes["inside_budget"], notes["reason"]) == ("minmax", "all", True, "")
    assert notes["aware_steps"] == 0, "it was not fine-tuned"
    assert notes["num_trials"] == 1
    assert notes["num_int8"] == notes["num_convolutions"] == 2
