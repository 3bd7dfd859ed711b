"""The lowest category of each method: counted by hand on rows made here."""

from bdpo.evaluate.results.compare import CategoryRow, Cell, Comparison
from bdpo.evaluate.results.statistics import rate
from bdpo.evaluate.results.tables import worst_grids
from bdpo.evaluate.results.worst import worst_categories


def category(name: str, n: int, benchmark: str = "strongreject", **successes: int) -> CategoryRow:
    return CategoryRow(benchmark, name, "safety", n, {method: Cell(rate(k, n)) for method, k in successes.items()})


ROWS = [
    category("fraud", 20, base=10, DPO=19),
    category("hate", 10, base=6, DPO=8),
    category("rare", 9, base=0, DPO=0),  # too few prompts
    category("only", 30, benchmark="advbench", base=0, DPO=0),  # a category without others is the whole
]


def test_the_lowest_category_of_each_method_with_enough_prompts() -> None:
    base, dpo = worst_categories(ROWS)
    assert (base.benchmark, base.method, base.category, base.n) == ("strongreject", "base", "fraud", 20)
    assert (dpo.method, dpo.category, dpo.n, dpo.score) == ("DPO", "hate", 10, rate(8, 10))


def test_of_equals_the_first() -> None:
    [found] = worst_categories([category("a", 10, base=5), category("b", 20, base=10)])
    assert found.category == "a"


def test_the_comparison_shows_it_with_its_interval() -> None:
    methods = {"base": ["base"], "DPO": ["DPO"]}
    [grid] = worst_grids(Comparison("base", "base", methods, {}, {}, [], [], ROWS))
    assert grid.title == "Worst category [%]" and len(grid.rows) == 1
    # Wilson's interval of 8 of 10: (0.8 + 0.19207 -+ 1.95996 sqrt(0.016 + 0.0096036)) / 1.384146 = 0.4902 to 0.9433
    assert grid.rows[0][0] == "strongreject" and grid.rows[0][2] == "hate, n 10\n80.0\n[49.0, 94.3]"
