# SPDX-License-Identifier: Apache-2.0
"""The bounded ring: never too full, never too old, every drop counted, order kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from posewire.edge.ring import Message, Ring

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 400)),
        st.tuples(st.just("pop"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 30)),
        st.tuples(st.just("back"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_bounds_order_and_count(steps: list[tuple[str, int]]) -> None:
    now = [0.0]
    ring = Ring(max_bytes=1000, max_age_s=2.0, clock=lambda: now[0])
    pushed, popped = 0, []
    taken: Message | None = None
    for what, number in steps:
        if what == "push":
            ring.push(str(pushed), b"x" * number)
            pushed += 1
        elif what == "wait":
            now[0] += number / 10
        elif what == "back" and taken is not None:
            ring.put_back([taken])
            popped.pop()
            taken = None
        elif what == "pop":
            taken = ring.pop()
            if taken is not None:
                assert taken.born_s >= now[0] - 2.0
                popped.append(int(taken.topic))
        assert 0 <= ring.queued_bytes <= 1000
    left = 0
    while (message := ring.pop()) is not None:
        popped.append(int(message.topic))
        left += 1
    assert popped == sorted(set(popped))
    assert pushed == len(popped) + ring.dropped
    assert ring.queued_bytes == 0


def test_the_oldest_goes_first() -> None:
    ring = Ring(max_bytes=300, max_age_s=None)
    for name in "abcd":
        ring.push(name, b"x" * 30)
    assert [message.topic for message in iter(ring.pop, None)] == ["b", "c", "d"]
    assert ring.dropped == 1


def test_one_message_that_is_too_big_for_the_ring() -> None:
    ring = Ring(max_bytes=100)
    ring.push("a", b"x" * 200)
    assert ring.pop() is None
    assert ring.dropped == 1
