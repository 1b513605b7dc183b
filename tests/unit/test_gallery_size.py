"""How many pictures a page can hold."""

import pytest

from raylearn.learning.cycle import Query
from raylearn.sweep.gallery import MOST_PER_QUERY, most_that_fit
from tests.unit.hand_made import make_dataset

TRUTH = make_dataset({f"{i}.jpg": [0] * 100 for i in range(20)}).truth
QUERY = Query(tuple(name for name in TRUTH if not name.startswith("test")), (0.0,) * 20)


@pytest.mark.parametrize(
    ("num_queries", "shown"),
    [(0, MOST_PER_QUERY), (1, MOST_PER_QUERY), (38 * 2, 5), (38 * 5, 2), (38 * 50, 1)],
)
def test_the_more_queries_the_fewer_images_of_each_are_shown(num_queries: int, shown: int) -> None:
    assert most_that_fit([QUERY] * num_queries, TRUTH) == shown


def test_short_queries_leave_room_for_more_of_others() -> None:
    short = Query(QUERY.image_ids[:1], (0.0,))
    assert most_that_fit([QUERY] * 10 + [short] * 300, TRUTH) == MOST_PER_QUERY
    assert most_that_fit([QUERY] * 310, TRUTH) < MOST_PER_QUERY
