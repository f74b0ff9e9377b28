"""The loops of ``Placer`` over all tasks of a call, compiled. ``_placer_plain`` has the same loops in plain Python."""

cimport cython
from cpython.bytearray cimport PyByteArray_Resize
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

import json

import numpy as np

cdef int64_t INDEX = 0xFFFFFFFF  # the bits of a release id that hold the index of the claim

cdef int64_t QUICK = 10**9  # larger amounts have texts of more than 15 digits
cdef enum:
    MAX_DIGITS = 19  # of a release id

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    int64_t PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    object PyUnicode_FromObject(object text)
    int PyGC_Disable()
    int PyGC_Enable()
    void PyObject_GC_UnTrack(object container)
    int PyObject_GenericSetAttr(object instance, object name, object value) except -1


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


def hidden(type cls, tuple values):
    """An instance of a frozen dataclass with slots, which the cyclic garbage collector ignores.

    It cannot be part of a cycle. A placer may have many thousands of them, and the collector would look at all of them
    again and again.
    """
    cdef Py_ssize_t at
    cdef tuple slots = cls.__slots__
    instance = cls.__new__(cls)
    if len(values) != len(slots):
        raise AssertionError("one value for each field")
    for at in range(len(slots)):
        PyObject_GenericSetAttr(instance, slots[at], values[at])
    PyObject_GC_UnTrack(instance)
    return instance


def named(tuple names, tuple row):
    """The amounts of the row by name."""
    cdef dict amounts = {}
    cdef Py_ssize_t at
    if len(names) != len(row):
        raise AssertionError("one amount for each name")
    for at in range(len(names)):
        amounts[names[at]] = row[at]
    return amounts


def restored(list tasks, list release_ids, dict claims, list by_index):
    """Add a claim to ``claims`` for each task, and to ``by_index`` at the index of its release id if it has that index.

    Returns the release ids, int64[tasks], and the number of valid tasks; the next one has an invalid entry.
    """
    cdef Py_ssize_t at, count = len(tasks), room = len(by_index)
    cdef int overflow = 0
    cdef int64_t release_id
    cdef Claim claim
    found = np.empty(count, dtype=np.int64)
    cdef int64_t[::1] ids = found
    if len(release_ids) != count:
        raise AssertionError("one release id for each task")
    for at in range(count):
        name, number = tasks[at], release_ids[at]
        if type(name) is not str or not name or type(number) is not int:
            return found, at
        release_id = PyLong_AsLongLongAndOverflow(number, &overflow)
        if overflow or release_id < 0:
            return found, at
        claim = Claim.__new__(Claim)
        claim.task = name
        claim.release_id = ids[at] = release_id
        claims[name] = claim
        if release_id & INDEX < room:
            by_index[release_id & INDEX] = claim
    return found, count


def names_as_json(dict claims):
    """The names of the tasks as the JSON text of a list, in ASCII."""
    cdef Py_ssize_t length, i, size = 2
    cdef const char* text
    cdef bytearray written
    cdef char* end
    for name in claims:
        size += len(<str>name) + 3
        if not PyUnicode_IS_ASCII(name):
            return _escaped(claims)
    written = bytearray(size)
    end = written
    end[0] = b"["
    end += 1
    for name in claims:
        text = PyUnicode_AsUTF8AndSize(name, &length)
        for i in range(length):
            if not b" " <= text[i] <= b"~" or text[i] == b'"' or text[i] == b"\\":
                return _escaped(claims)
        end[0] = b'"'
        memcpy(end + 1, text, length)
        end[length + 1] = b'"'
        end[length + 2] = b","
        end += length + 3
    return _closed(written, end)


cdef bytes _escaped(dict claims):
    return json.dumps([*claims], separators=(",", ":")).encode()


def ids_as_json(dict claims):
    """The release ids of the tasks as the JSON text of a list, in ASCII."""
    cdef bytearray written = bytearray(2 + (MAX_DIGITS + 1) * len(claims))
    cdef char* end = written
    cdef char[MAX_DIGITS] digits
    cdef int at
    cdef int64_t left
    end[0] = b"["
    end += 1
    for claim in claims.values():
        left, at = (<Claim?>claim).release_id, MAX_DIGITS
        if left < 0:
            raise AssertionError("a task without a release id")
        while left > 0 or at == MAX_DIGITS:
            at -= 1
            digits[at] = <char>(48 + left % 10)
            left //= 10
        memcpy(end, digits + at, MAX_DIGITS - at)
        end[MAX_DIGITS - at] = b","
        end += MAX_DIGITS - at + 1
    return _closed(written, end)


cdef bytearray _closed(bytearray written, char* end):
    """The text of a list up to ``end``, with the closing bracket in place of the last comma."""
    cdef char* start = written
    cdef Py_ssize_t size = end - start
    if size > 1:
        size -= 1
    start[size] = b"]"
    PyByteArray_Resize(written, size + 1)
    return written


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

    ``by_index`` gets each claim at the index of its release id, and grows as needed.

    The cyclic garbage collector is off during this call. Otherwise it would run for every few hundred pairs and take
    longer than making them. Pairs of two texts are untracked, because they cannot be part of a cycle. No other Python
    code runs meanwhile.
    """
    cdef Py_ssize_t at, count = len(entered)
    cdef int64_t index
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
                index = claim.release_id & INDEX
                while len(by_index) <= index:
                    by_index.append(None)
                by_index[index] = claim
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
