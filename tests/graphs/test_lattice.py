"""The laws that feasible states keep, on random lattices with shared requirements, alternatives and circles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.lattice import InvalidLattice, Lattice, State, TooManyStates, UnknownGoal, Way

IDS = "abcdefg"


@st.composite
def lattices(draw: st.DrawFn, most_ways: int = 3) -> Lattice:
    """Up to seven goals; a way may require any other goals, so circles and unreachable goals occur."""
    goals = IDS[: draw(st.integers(1, len(IDS)))]
    ways: dict[str, list[Way]] = {}
    for goal in goals:
        others = [other for other in goals if other != goal]
        sets = st.frozensets(st.sampled_from(others), max_size=3) if others else st.just(frozenset[str]())
        required = draw(st.lists(sets, max_size=most_ways, min_size=1 if most_ways == 1 else 0))
        ways[goal] = [Way(f"{goal}.{n}", goal, "agent", one, draw(st.integers(0, 9))) for n, one in enumerate(required)]
    return Lattice(ways, {goal: draw(st.integers(0, 3)) for goal in goals})


def grown(lattice: Lattice, within: State | None = None) -> State:
    """By the definition, with nothing of the lattice's own but its ways."""
    state: set[str] = set()
    while True:
        new = {
            goal
            for goal in (lattice.goals if within is None else within) - state
            if any(way.requires <= state for way in lattice.ways_of(goal))
        }
        if not new:
            return frozenset(state)
        state |= new


@given(lattices(), st.data())
def test_join_and_meet_keep_the_laws_of_a_lattice(lattice: Lattice, data: st.DataObject) -> None:
    states = st.sampled_from(lattice.states())
    a, b, c = data.draw(states), data.draw(states), data.draw(states)
    join, meet = lattice.join, lattice.meet
    assert join(a, b) == join(b, a)
    assert meet(a, b) == meet(b, a)
    assert join(a, join(b, c)) == join(join(a, b), c)
    assert meet(a, meet(b, c)) == meet(meet(a, b), c)
    assert join(a, a) == a == meet(a, a)
    assert join(a, meet(a, b)) == a == meet(a, join(a, b))


@given(lattices())
def test_join_is_the_least_state_above_and_meet_the_greatest_below(lattice: Lattice) -> None:
    states = lattice.states()[:25]
    everything = lattice.states()
    for a in states:
        for b in states:
            join, meet = lattice.join(a, b), lattice.meet(a, b)
            assert lattice.is_feasible(join)
            assert lattice.is_feasible(meet)
            assert all(join <= state for state in everything if a <= state and b <= state)
            assert all(state <= meet for state in everything if state <= a and state <= b)


@given(lattices())
def test_states_are_exactly_the_sets_that_some_order_reaches(lattice: Lattice) -> None:
    goals = sorted(lattice.goals)
    subsets = (frozenset(g for n, g in enumerate(goals) if bits >> n & 1) for bits in range(1 << len(goals)))
    expected = {subset for subset in subsets if grown(lattice, subset) == subset}
    assert set(lattice.states()) == expected
    assert len(lattice.states()) == len(expected)
    assert all(lattice.is_feasible(state) == (state in expected) for state in expected)


@given(lattices())
def test_covers_of_a_state_are_the_state_and_one_goal_of_its_fringe(lattice: Lattice) -> None:
    states = set(lattice.states())
    for state in states:
        above = {other for other in states if state < other}
        smallest = {one for one in above if not any(other < one for other in above)}
        assert smallest == set(lattice.covers(state)) == {state | {goal} for goal in lattice.fringe(state)}


@given(lattices(), st.data())
def test_interior_is_the_largest_feasible_subset(lattice: Lattice, data: st.DataObject) -> None:
    some = data.draw(st.frozensets(st.sampled_from(sorted(lattice.goals))))
    assert lattice.interior(some) == grown(lattice, some)
    assert lattice.is_feasible(some) == (grown(lattice, some) == some)
    assert lattice.reachable() == grown(lattice) == lattice.closure(())


@given(lattices())
def test_necessary_goals_are_what_all_states_with_a_goal_share(lattice: Lattice) -> None:
    for goal in lattice.reachable():
        containing = [state for state in lattice.states() if goal in state]
        assert lattice.necessary([goal]) == frozenset.intersection(*containing)


@given(lattices(most_ways=1))
def test_with_one_way_a_goal_the_lattice_is_that_of_the_down_sets(lattice: Lattice) -> None:
    assert lattice.is_distributive()
    states = lattice.states()
    assert all(lattice.meet(a, b) == a & b for a in states[:20] for b in states[:20])
    for goal in lattice.reachable():
        down_set = lattice.necessary([goal])
        assert lattice.is_feasible(down_set)
        assert all(down_set <= state for state in states if goal in state)


def test_a_meet_can_be_smaller_than_the_intersection() -> None:
    lattice = Lattice(
        {
            "a": [Way("a.1", "a", "x")],
            "b": [Way("b.1", "b", "x")],
            "c": [Way("c.1", "c", "x", frozenset("a")), Way("c.2", "c", "x", frozenset("b"))],
        }
    )
    assert not lattice.is_distributive()
    assert lattice.meet("ac", "bc") == frozenset()
    assert lattice.necessary("c") == {"c"}


def test_alternatives_that_require_each_other_are_usable_from_outside() -> None:
    ways = {
        "a": [Way("a.1", "a", "x", frozenset("b")), Way("a.2", "a", "x")],
        "b": [Way("b.1", "b", "x", frozenset("a"))],
        "c": [Way("c.1", "c", "x", frozenset("d"))],
        "d": [Way("d.1", "d", "x", frozenset("c"))],
    }
    lattice = Lattice(ways)
    assert lattice.reachable() == {"a", "b"}
    assert lattice.states() == (frozenset(), frozenset("a"), frozenset("ab"))
    assert lattice.closure("c") == {"a", "b", "c", "d"}


def test_listing_states_stops_at_the_limit() -> None:
    lattice = Lattice({f"g{n:02}": [Way(f"g{n:02}.1", f"g{n:02}", "x")] for n in range(40)})
    with pytest.raises(TooManyStates, match="more than 500"):
        lattice.states(limit=500)


@pytest.mark.parametrize(
    ("ways", "message"),
    [
        ({"a": [Way("a.1", "b", "x")]}, "listed under «a»"),
        ({"a": [Way("a.1", "a", "x"), Way("a.1", "a", "x")]}, "two ways have the id «a.1»"),
        ({"a": [Way("a.1", "a", "x", frozenset("z"))]}, "requires the unknown goal «z»"),
        ({"a": [Way("a.1", "a", "x", cost=-1)]}, "costs -1"),
        ({"a": [Way("a.1", "a", "x", cost=float("nan"))]}, "costs nan"),
    ],
)
def test_goals_and_ways_that_do_not_fit_are_refused(ways: dict[str, list[Way]], message: str) -> None:
    with pytest.raises(InvalidLattice, match=message):
        Lattice(ways)


def test_an_unknown_goal_is_named() -> None:
    lattice = Lattice({"a": [Way("a.1", "a", "x")]})
    with pytest.raises(UnknownGoal, match="unknown goal «z»; known: a"):
        lattice.fringe("z")
    with pytest.raises(InvalidLattice, match=r"unknown way «a\.2»"):
        lattice.way("a.2")
