from typing import Any, final

import numpy as np
from numpy.typing import NDArray

@final
class Claim:
    @property
    def task(self) -> str: ...
    release_id: int
    def __init__(self, task: str, release_id: int = -1) -> None: ...

def thousandths(amounts: Any, dimensions: tuple[str, ...]) -> list[int] | None: ...
def restored(tasks: list[Any], release_ids: list[Any], claims: dict[str, Claim]) -> int: ...
def enter(
    tasks: list[Any], numbers: dict[Any, int], claims: dict[str, Claim]
) -> tuple[list[Claim], NDArray[np.int32], int]: ...
def answer(
    entered: list[Claim],
    slots: NDArray[np.int32],
    ids: NDArray[np.int64],
    hosts: list[str | None],
    claims: dict[str, Claim],
    by_index: list[Claim | None],
) -> list[tuple[str, str | None]]: ...
def leave(names: list[str], claims: dict[str, Claim], by_index: list[Claim | None]) -> NDArray[np.int64]: ...
