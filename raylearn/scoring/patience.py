"""A store that does not answer for a minute: what was asked of it is asked again."""

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from threading import Event
from typing import TypeVar

from raylearn.errors import StorageError

PATIENCE_SECONDS = 180.0
"""How long one piece of work waits for a store that does not answer."""

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 20.0
_FAILURES_PER_ACTOR = 3  # in a row, none finished between: then the store is away for all of them
Result = TypeVar("Result")
Numbered = TypeVar("Numbered")


def patiently(work: Callable[[], Result], given_up: Event) -> Result:
    """Does work; where a store does not answer, again, after waits that grow.

    Args:
        work: can be repeated.
        given_up: set when nobody wants the result any more, which ends a wait.

    Raises:
        StorageError: the store refuses, or has not answered for `PATIENCE_SECONDS`.
    """
    waits = random.SystemRandom()  # apart from each other, or a store that comes back is overrun
    waited, longest = 0.0, _FIRST_WAIT
    while True:
        try:
            return work()
        except StorageError as error:
            if not error.may_pass or waited >= PATIENCE_SECONDS:
                raise
            wait = waits.uniform(longest / 2, longest)
            if given_up.wait(wait):
                raise
            waited, longest = waited + wait, min(2 * longest, _LONGEST_WAIT)


def until_all_are_there(
    parts: Sequence[int],
    score: Callable[[Sequence[int]], Generator[Numbered | StorageError, None, None]],
    number_of: Callable[[Numbered], int],
    num_actors: int,
) -> Generator[Numbered, None, None]:
    """Parts whose storage did not answer are scored again when the others are done, by whichever actor is free then.

    Args:
        parts: numbers.
        score: of parts, in no order; a StorageError in the place of one.
        number_of: of a finished part.
        num_actors: that work at once.

    Raises:
        StorageError: the last one, where a store answers to none.
    """
    left = set(parts)
    while left:
        before, in_a_row = len(left), 0
        failure: StorageError | None = None
        with closing(score(sorted(left))) as scored:
            for part in scored:
                if isinstance(part, StorageError):
                    failure, in_a_row = part, in_a_row + 1
                    if in_a_row >= _FAILURES_PER_ACTOR * num_actors:
                        raise failure
                    continue
                in_a_row = 0
                left.discard(number_of(part))
                yield part
        if failure and len(left) == before:
            raise failure
        if not failure:
            return
