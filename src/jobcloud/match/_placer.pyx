"""The loops of ``Placer`` over all tasks of a call, compiled. ``_placer_plain`` has the same loops in plain Python."""

cimport cython
from libc.stdint cimport int32_t, int64_t

import numpy as np

cdef int64_t INDEX = 0xFFFFFFFF  # the bits of a release id that hold the index of the claim

cdef int64_t QUICK = 10**9  # larger amounts have texts of more than 15 digits
cdef object MAX_RELEASE_ID = 2**63 - 1

cdef extern from "Python.h":
    object PyUnicode_FromObject(object text)
    int PyGC_Disable()
    int PyGC_Enable()
    void PyObject_GC_UnTrack(object container)


@cython.final
@cython.auto_pickle(False)
cdef class Claim:
    """A task's name and its release id; -1 before it is placed.

    A placer's dict holds claims instead of ids. So setting an id needs no second look-up in the dict, which would cost
    a cache miss.
    """

    cdef readonly str task
    cdef public int64_t release_id

    def __init__(self, str task not None, int64_t release_id=-1):
        self.task, self.release_id = task, release_id


def thousandths(amounts, tuple dimensions):
    """The amounts in thousandths, by dimension. None unless all are plain numbers for which that is quick."""
    cdef list row = []
    cdef Py_ssize_t known = 0
    cdef int64_t whole
    cdef double number
    if type(amounts) is not dict:
        return None
    for name in dimensions:
        value = (<dict>amounts).get(name)
        if value is None:
            if name in <dict>amounts:
                return None
            row.append(0)
            continue
        known += 1
        if type(value) is int:
            if not 0 <= value <= QUICK:
                return None
            whole = value
            row.append(1_000 * whole)
        elif type(value) is float:
            number = value
            if not 0 <= number <= QUICK:
                return None
            whole = <int64_t>(number * 1_000 + 0.5)
            if whole / 1_000.0 != number:  # otherwise the shortest text of the number has at most three decimals
                return None
            row.append(whole)
        else:
            return None
    return row if known == len(<dict>amounts) else None


def restored(list tasks, list release_ids, dict claims):
    """Add a claim to ``claims`` for each task. Returns the number of valid ones; the next one has an invalid entry."""
    cdef Py_ssize_t at
    cdef Claim claim
    for at in range(min(len(tasks), len(release_ids))):
        name, number = tasks[at], release_ids[at]
        if type(name) is not str or not name or type(number) is not int or not 0 <= number <= MAX_RELEASE_ID:
            return at
        claim = Claim.__new__(Claim)
        claim.task = name
        claim.release_id = number
        claims[name] = claim
    return min(len(tasks), len(release_ids))


def enter(list tasks, dict numbers, dict claims):
    """Add a claim without a release id to ``claims`` for each (name, shape) pair of ``tasks``.

    Returns the claims; the class of each task, int32[tasks], from ``numbers``; and the number of valid tasks. If there
    are fewer than all, ``claims`` is unchanged, and the next task is the first invalid one: it is not a pair, its name
    is invalid or already present, or its shape is unknown.
    """
    cdef Py_ssize_t at, done = 0, count = len(tasks)
    cdef list entered = [None] * count
    cdef Claim claim
    classes = np.empty(count, dtype=np.int32)
    cdef int32_t[::1] cls = classes
    try:
        for at in range(count):
            name, shape = tasks[at]
            number = numbers.get(shape)
            if number is None or not isinstance(name, str) or not name:
                break
            claim = Claim.__new__(Claim)
            claim.task = name if type(name) is str else PyUnicode_FromObject(name)
            claim.release_id = -1
            if claims.setdefault(claim.task, claim) is not claim:
                break
            entered[at], cls[at] = claim, number
            done += 1
    except (TypeError, ValueError):
        pass
    finally:
        if done < count:
            for at in range(done):
                del claims[(<Claim>entered[at]).task]
    return entered, classes, done


def answer(list entered, const int32_t[::1] slots, const int64_t[::1] ids, list hosts, dict claims, list by_index):
    """Set the release ids of the claims. Returns (task, host) for each. Claims of tasks without a host are removed.

    ``by_index`` gets each claim at the index of its release id; it must be long enough.

    The cyclic garbage collector is off during this call. Otherwise it would run for every few hundred pairs and take
    longer than making them. Pairs of two texts are untracked, because they cannot be part of a cycle. No other Python
    code runs meanwhile.
    """
    cdef Py_ssize_t at, count = len(entered)
    cdef list pairs = [None] * count
    cdef tuple pair
    cdef Claim claim
    cdef bint collecting
    if slots.shape[0] != count or ids.shape[0] != count:
        raise AssertionError("one slot and one release id for each task")
    collecting = PyGC_Disable()
    try:
        for at in range(count):
            claim, host = entered[at], None
            claim.release_id = ids[at]
            if claim.release_id >= 0:
                host = hosts[slots[at]]
                by_index[claim.release_id & INDEX] = claim
            else:
                del claims[claim.task]
            pair = (claim.task, host)
            if host is None or type(host) is str:
                PyObject_GC_UnTrack(pair)
            pairs[at] = pair
    finally:
        if collecting:
            PyGC_Enable()
    return pairs


def leave(list names, dict claims, list by_index):
    """Remove the claims of these tasks. Returns their release ids, int64[tasks]; -1 for an unknown task."""
    cdef Py_ssize_t at
    cdef Claim claim
    found = np.empty(len(names), dtype=np.int64)
    cdef int64_t[::1] ids = found
    for at in range(len(names)):
        claim = claims.pop(names[at], None)
        ids[at] = -1 if claim is None else claim.release_id
        if ids[at] >= 0:
            by_index[ids[at] & INDEX] = None
    return found
