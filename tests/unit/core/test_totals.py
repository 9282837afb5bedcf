"""Sums that are kept up to date are the sums."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from servingd.core.resources.totals import Share, Totals, larger
from servingd.core.types import NO_BYTES, Device, Resources, ServableId

DEVICES = [Device("CPU", 0), Device("GPU", 0), Device("GPU", 1)]
IDS = [ServableId(name, version) for name in "ab" for version in (1, 2)]

sizes = st.integers(0, 9)
amounts = st.builds(Resources, sizes, st.dictionaries(st.sampled_from(DEVICES), sizes))
shares = st.builds(
    Share,
    amounts,
    amounts,
    st.lists(st.sampled_from(DEVICES), max_size=3).map(tuple),
    st.one_of(st.just(NO_BYTES), amounts),
)
steps = st.lists(st.tuples(st.sampled_from(IDS), st.one_of(st.none(), shares)), max_size=12)
others = st.sets(st.sampled_from(IDS))


def same(one, other):
    return one.ram == other.ram and all(one.on(d) == other.on(d) for d in DEVICES)


def total(found):
    return reduce(Resources.__add__, found, NO_BYTES)


@given(steps, st.one_of(st.none(), st.sampled_from(IDS)), others)
def test_every_sum_is_the_sum_of_the_shares(steps, but, gone):
    totals, known = Totals(), {}
    for servable_id, share in steps:
        if share is None:
            totals.drop(servable_id)
            known.pop(servable_id, None)
        else:
            totals.put(servable_id, share)
            known[servable_id] = share
        totals.largest_growth()  # so that what is remembered must follow
    rest = [share for i, share in known.items() if i != but]
    stay = [share for i, share in known.items() if i != but and i not in gone]
    assert same(totals.now(but), total(share.now for share in rest))
    assert same(totals.later(but, gone), total(share.later for share in stay))
    growth = reduce(larger, (share.growth for share in rest), NO_BYTES)
    assert same(totals.largest_growth(but), growth)
    counts = totals.replicas(but, gone)
    for device in DEVICES:
        assert counts.get(device, 0) == sum(s.replicas.count(device) for s in stay)
