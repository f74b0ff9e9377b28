"""Packs tasks on hosts and revises packings many times: the part of the planner for which numpy is too slow.

A kind is a set of equal tasks. Jobs have rules about their neighbours on a host. A key stands for amounts that several
tasks share on a host (an executor). `problem.py` makes and describes the arrays. `verify.py` checks every answer
independently. Amounts are int64, so the check that a task fits is exact. Floats only determine which hosts are
preferred.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

import numpy as np

cdef enum:
    UNPLACED = -1
    MAX_EJECTED = 4
    MAX_ON_A_HOST = 512  # no tasks are ejected from a host with more tasks

cdef enum Rule:
    FIRST = 0
    BEST = 1
    WORST = 2
    DOT = 3
    L2 = 4

RULES = ("first", "best", "worst", "dot", "l2")


@cython.final
@cython.auto_pickle(False)
cdef class Packer:
    """A packing that can be revised. The arrays are those of `Problem`. Kinds are sorted by job, tasks by kind."""

    cdef readonly int hosts, kinds, jobs, tasks, dimensions, keys
    cdef int64_t[:, ::1] capacity, request, shared, free
    cdef int32_t[::1] host_type, kind_job, kind_key, first, job_first, max_per_host
    cdef uint8_t[:, ::1] allowed
    cdef int32_t[::1] rule_start, rule_job, rule_limit, back_start, back_job, back_limit
    cdef int32_t[::1] host_of, kind_of, following, before, head, on_host
    cdef int32_t[:, ::1] paid
    cdef double[:, ::1] scale
    cdef double[::1] weight
    cdef int32_t[::1] cap, tally, forward, backward
    cdef double[::1] score
    cdef int32_t[::1] seen, untried, heap
    cdef int64_t[::1] penalty
    cdef uint64_t dice

    def __init__(self, problem, capacity, host_type, weight, seed):
        self.capacity = np.ascontiguousarray(capacity, dtype=np.int64)
        self.host_type = np.ascontiguousarray(host_type, dtype=np.int32)
        self.request, self.shared = problem.request, problem.shared
        self.kind_job, self.kind_key, self.first = problem.kind_job, problem.kind_key, problem.first
        self.job_first, self.max_per_host, self.allowed = problem.job_first, problem.max_per_host, problem.allowed
        self.rule_start, self.rule_job, self.rule_limit = problem.rules
        self.back_start, self.back_job, self.back_limit = problem.back_rules
        self.hosts, self.dimensions = self.capacity.shape[0], self.capacity.shape[1]
        self.kinds, self.jobs = self.request.shape[0], self.max_per_host.shape[0]
        self.tasks, self.keys = self.first[self.kinds], self.shared.shape[0]
        self.free = np.array(capacity, dtype=np.int64, order="C")
        self.host_of = np.full(self.tasks, UNPLACED, dtype=np.int32)
        self.kind_of = np.repeat(np.arange(self.kinds, dtype=np.int32), np.diff(np.asarray(self.first)))
        self.following = np.full(self.tasks, UNPLACED, dtype=np.int32)
        self.before = np.full(self.tasks, UNPLACED, dtype=np.int32)
        self.head = np.full(self.hosts, UNPLACED, dtype=np.int32)
        self.on_host = np.zeros(self.hosts, dtype=np.int32)
        self.paid = np.zeros((self.keys, self.hosts), dtype=np.int32)
        self.weight = np.ascontiguousarray(weight, dtype=np.float64)
        largest = np.maximum(np.asarray(self.capacity), 1)
        self.scale = 1.0 / largest
        self.cap = np.zeros(self.hosts, dtype=np.int32)
        self.tally = np.zeros(self.hosts, dtype=np.int32)
        self.forward = np.full(self.jobs, 1 << 30, dtype=np.int32)
        self.backward = np.full(self.jobs, 1 << 30, dtype=np.int32)
        self.score = np.zeros(self.hosts)
        self.heap = np.zeros(self.hosts, dtype=np.int32)
        self.seen = np.zeros(self.jobs, dtype=np.int32)
        self.untried = np.array(self.first[:self.kinds])
        self.penalty = np.ones(self.tasks, dtype=np.int64)
        self.dice = <uint64_t>(seed * 2 + 1) ^ <uint64_t>0x9E3779B97F4A7C15

    def placement(self):
        """int32[tasks]: the host of each task, -1 for none."""
        return np.array(self.host_of)

    def left(self):
        """int64[hosts, dimensions]: the free amounts."""
        return np.array(self.free)

    def used(self):
        """int32[hosts]: the number of tasks on each host."""
        return np.array(self.on_host)

    def assign(self, int32_t[::1] host_of):
        """Put tasks on the hosts of an earlier answer. Tasks that do not fit stay unplaced."""
        cdef int t, kind
        for t in range(self.tasks):
            if host_of[t] >= 0 and self.host_of[t] < 0 and host_of[t] < self.hosts:
                kind = self.kind_of[t]
                if self.fits(kind, host_of[t]) and self.agrees(self.kind_job[kind], host_of[t]):
                    self.put(t, host_of[t])

    # ---------------------------------------------------------------------------------------------- one task, one host

    cdef inline bint fits(self, int kind, int host) noexcept nogil:
        cdef int d, key = self.kind_key[kind]
        if not self.allowed[kind, self.host_type[host]]:
            return False
        if key >= 0 and self.paid[key, host] == 0:
            for d in range(self.dimensions):
                if self.request[kind, d] + self.shared[key, d] > self.free[host, d]:
                    return False
        else:
            for d in range(self.dimensions):
                if self.request[kind, d] > self.free[host, d]:
                    return False
        return True

    cdef void put(self, int task, int host) noexcept nogil:
        cdef int d, kind = self.kind_of[task], key = self.kind_key[kind]
        for d in range(self.dimensions):
            self.free[host, d] -= self.request[kind, d]
        if key >= 0:
            if self.paid[key, host] == 0:
                for d in range(self.dimensions):
                    self.free[host, d] -= self.shared[key, d]
            self.paid[key, host] += 1
        self.host_of[task] = host
        self.before[task] = UNPLACED
        self.following[task] = self.head[host]
        if self.head[host] >= 0:
            self.before[self.head[host]] = task
        self.head[host] = task
        self.on_host[host] += 1

    cdef void take(self, int task) noexcept nogil:
        cdef int d, host = self.host_of[task], kind = self.kind_of[task], key = self.kind_key[kind]
        for d in range(self.dimensions):
            self.free[host, d] += self.request[kind, d]
        if key >= 0:
            self.paid[key, host] -= 1
            if self.paid[key, host] == 0:
                for d in range(self.dimensions):
                    self.free[host, d] += self.shared[key, d]
        if self.before[task] >= 0:
            self.following[self.before[task]] = self.following[task]
        else:
            self.head[host] = self.following[task]
        if self.following[task] >= 0:
            self.before[self.following[task]] = self.before[task]
        self.host_of[task] = UNPLACED
        self.on_host[host] -= 1

    cdef inline int limit(self, int job, int other) noexcept nogil:
        """The maximum number of tasks of `other` on a host with a task of `job`."""
        cdef int low = self.rule_start[job], high = self.rule_start[job + 1], middle
        while low < high:
            middle = (low + high) >> 1
            if self.rule_job[middle] < other:
                low = middle + 1
            else:
                high = middle
        if low < self.rule_start[job + 1] and self.rule_job[low] == other:
            return self.rule_limit[low]
        return 1 << 30

    cdef bint agrees(self, int job, int host) noexcept nogil:
        """Whether one more task of the job breaks no rule on the host."""
        cdef int task = self.head[host], other, own = 0, limit = self.max_per_host[job]
        cdef bint ruled = (
            self.rule_start[job] < self.rule_start[job + 1] or self.back_start[job] < self.back_start[job + 1]
        )
        if not ruled and limit >= self.tasks:
            return True
        while task >= 0:
            other = self.kind_job[self.kind_of[task]]
            if other == job:
                own += 1
            elif ruled:
                self.seen[other] += 1
                if self.seen[other] == 1:
                    limit = min(limit, self.limit(other, job))
            task = self.following[task]
        if ruled:
            task = self.head[host]
            while task >= 0:
                other = self.kind_job[self.kind_of[task]]
                if self.seen[other] and self.seen[other] > self.limit(job, other):
                    limit = 0
                self.seen[other] = 0
                task = self.following[task]
        return own < limit

    # ------------------------------------------------------------------------------------------- many tasks of one kind

    cdef void find_caps(self, int job) noexcept nogil:
        """Set cap[h]: the number of further tasks of the job that the rules allow on each host."""
        cdef int h, n, t, other
        for h in range(self.hosts):
            self.cap[h] = self.max_per_host[job]
        for n in range(self.back_start[job], self.back_start[job + 1]):
            other = self.back_job[n]
            for t in range(self.job_first[other], self.job_first[other + 1]):
                h = self.host_of[t]
                if h >= 0 and self.cap[h] > self.back_limit[n]:
                    self.cap[h] = self.back_limit[n]
        for t in range(self.job_first[job], self.job_first[job + 1]):
            h = self.host_of[t]
            if h >= 0:
                self.cap[h] -= 1
        for n in range(self.rule_start[job], self.rule_start[job + 1]):
            other = self.rule_job[n]
            for t in range(self.job_first[other], self.job_first[other + 1]):
                h = self.host_of[t]
                if h >= 0:
                    self.tally[h] += 1
                    if self.tally[h] > self.rule_limit[n]:
                        self.cap[h] = 0
            for t in range(self.job_first[other], self.job_first[other + 1]):
                h = self.host_of[t]
                if h >= 0:
                    self.tally[h] = 0

    cdef double rate(self, int kind, int host, Rule rule) noexcept nogil:
        """The score of a host. Lower is better; 1e300 if the task does not fit."""
        cdef int d, key = self.kind_key[kind]
        cdef double had, asked, score = 0.0
        cdef bint pays = key >= 0 and self.paid[key, host] == 0
        cdef int64_t need
        if self.cap[host] < 1 or not self.allowed[kind, self.host_type[host]]:
            return 1e300
        for d in range(self.dimensions):
            need = self.request[kind, d]
            if pays:
                need += self.shared[key, d]
            if need > self.free[host, d]:
                return 1e300
            had = self.free[host, d] * self.scale[host, d]
            asked = need * self.scale[host, d]
            if rule == BEST:
                score += self.weight[d] * (had - asked)
            elif rule == WORST:
                score -= self.weight[d] * (had - asked)
            elif rule == DOT:
                score -= self.weight[d] * had * asked
            elif rule == L2:
                score += self.weight[d] * (had - asked) * (had - asked)
        return host if rule == FIRST else score

    def place(self, int kind, int rule, int host_limit=-1):
        """Place the kind's unplaced tasks, each on the best of the first `host_limit` hosts.

        Returns the number of tasks that stay unplaced.
        """
        cdef int left = 0
        if host_limit < 0 or host_limit > self.hosts:
            host_limit = self.hosts
        with nogil:
            left = self.place_kind(kind, <Rule>rule, host_limit)
        return left

    cdef int place_kind(self, int kind, Rule rule, int host_limit) noexcept nogil:
        cdef int t, h, best, size = 0, left = 0
        self.find_caps(self.kind_job[kind])
        for h in range(host_limit):
            self.score[h] = self.rate(kind, h, rule)
            if self.score[h] < 1e299:
                self.heap[size] = h
                size += 1
        for h in range(size // 2 - 1, -1, -1):
            self.sift(h, size)
        for t in range(self.first[kind], self.first[kind + 1]):
            if self.host_of[t] >= 0:
                continue
            if size == 0:
                left += 1
                continue
            best = self.heap[0]
            self.put(t, best)
            self.cap[best] -= 1
            self.score[best] = self.rate(kind, best, rule)
            if self.score[best] >= 1e299:
                size -= 1
                self.heap[0] = self.heap[size]
            self.sift(0, size)
        return left

    cdef void sift(self, int at, int size) noexcept nogil:
        """Restore the heap order below the place `at`: the lowest score first, then the lowest host."""
        cdef int child, host = self.heap[at]
        while 2 * at + 1 < size:
            child = 2 * at + 1
            if child + 1 < size and self.precedes(self.heap[child + 1], self.heap[child]):
                child += 1
            if not self.precedes(self.heap[child], host):
                break
            self.heap[at] = self.heap[child]
            at = child
        self.heap[at] = host

    cdef inline bint precedes(self, int one, int other) noexcept nogil:
        return self.score[one] < self.score[other] or (self.score[one] == self.score[other] and one < other)

    def fill(self, int host, int32_t[::1] kinds, int rule, double[::1] weight):
        """Fill one host (bin-centric): while any kind fits, place a task of the kind that suits the free amounts best.

        Of equally good kinds, the first one in `kinds` is taken. Returns the number of placed tasks.
        """
        cdef int n, k, d, best, placed = 0
        cdef double score, highest, had, asked
        cdef int64_t need
        cdef int key
        with nogil:
            while True:
                best, highest = -1, -1e300
                for n in range(kinds.shape[0]):
                    k = kinds[n]
                    while self.untried[k] < self.first[k + 1] and self.host_of[self.untried[k]] >= 0:
                        self.untried[k] += 1
                    if self.untried[k] >= self.first[k + 1] or not self.fits(k, host):
                        continue
                    score, key = 0.0, self.kind_key[k]
                    for d in range(self.dimensions):
                        need = self.request[k, d]
                        if key >= 0 and self.paid[key, host] == 0:
                            need += self.shared[key, d]
                        had = self.free[host, d] * self.scale[host, d]
                        asked = need * self.scale[host, d]
                        if rule == DOT:
                            score += weight[d] * had * asked
                        elif rule == L2:
                            score -= weight[d] * (had - asked) * (had - asked)
                        else:
                            score += weight[d] * asked
                    if score > highest and self.agrees(self.kind_job[k], host):
                        best, highest = k, score
                if best < 0:
                    break
                self.put(self.untried[best], host)
                placed += 1
        return placed

    def waiting(self, int32_t[::1] kinds):
        """bool[n]: for each kind, whether any task has no host yet. Only valid before a task leaves a host."""
        cdef int n, k
        found = np.zeros(kinds.shape[0], dtype=np.bool_)
        cdef uint8_t[::1] out = found.view(np.uint8)
        for n in range(kinds.shape[0]):
            k = kinds[n]
            while self.untried[k] < self.first[k + 1] and self.host_of[self.untried[k]] >= 0:
                self.untried[k] += 1
            out[n] = self.untried[k] < self.first[k + 1]
        return found

    # ------------------------------------------------------------------------------------------------- eject and repack

    cdef inline uint64_t roll(self) noexcept nogil:
        self.dice ^= self.dice << 13
        self.dice ^= self.dice >> 7
        self.dice ^= self.dice << 17
        return self.dice

    cdef int best_host(self, int kind) noexcept nogil:
        """The host with the least room left after it gets a task of the kind; -1 if the task fits no host."""
        cdef int h, best = -1
        cdef double score, lowest = 1e299
        self.find_caps(self.kind_job[kind])
        for h in range(self.hosts):
            if self.cap[h] > 0:
                score = self.rate(kind, h, BEST)
                if score < lowest:
                    best, lowest = h, score
        return best

    cdef inline int64_t gives(self, int task, int host, int key, int d) noexcept nogil:
        """The amount that a task frees when a task with `key` replaces it.

        A shared amount is freed, too, if neither the new task nor any other task on the host takes it.
        """
        cdef int kind = self.kind_of[task], own = self.kind_key[kind]
        if own >= 0 and own != key and self.paid[own, host] == 1:
            return self.request[kind, d] + self.shared[own, d]
        return self.request[kind, d]

    cdef int64_t ejection(self, int kind, int host, int64_t bound, int32_t* out, int* size) noexcept nogil:
        """Find tasks whose ejection makes room for a task of the kind, with a low total penalty.

        Writes the tasks to `out` and their number to `size`. Returns their total penalty, or -1 if no tasks with a
        total below `bound` are found. `forward` and `backward` hold the limits of the kind's job.
        """
        cdef int32_t content[MAX_ON_A_HOST]
        cdef uint8_t forced[MAX_ON_A_HOST]
        cdef int64_t lack[64]
        cdef int n = 0, task = self.head[host], job = self.kind_job[kind], other, own = 0, d, i, j, m, key, count = 0
        cdef int64_t cost = 0, best
        cdef bint enough
        if not self.allowed[kind, self.host_type[host]]:
            return -1
        if self.on_host[host] > MAX_ON_A_HOST or self.dimensions > 64:
            return -1
        key = self.kind_key[kind]
        for d in range(self.dimensions):
            lack[d] = self.request[kind, d] - self.free[host, d]
            if key >= 0 and self.paid[key, host] == 0:
                lack[d] += self.shared[key, d]
        while task >= 0:
            content[n], forced[n] = task, 0
            other = self.kind_job[self.kind_of[task]]
            if other == job:
                own += 1
            n += 1
            task = self.following[task]
        if own >= self.max_per_host[job]:
            # Only a task of the same job could make room, which gains nothing.
            return -1
        for i in range(n):
            other = self.kind_job[self.kind_of[content[i]]]
            if other == job:
                continue
            if self.backward[other] < own + 1:
                forced[i] = 1
            else:
                self.seen[other] += 1
                if self.seen[other] > self.forward[other]:
                    forced[i] = 1
            if forced[i]:
                count += 1
                cost += self.penalty[content[i]]
                if count <= MAX_EJECTED:
                    out[count - 1] = content[i]
                for d in range(self.dimensions):
                    lack[d] -= self.gives(content[i], host, key, d)
        for i in range(n):
            self.seen[self.kind_job[self.kind_of[content[i]]]] = 0
        if count > MAX_EJECTED or cost >= bound:
            return -1
        enough = True
        for d in range(self.dimensions):
            if lack[d] > 0:
                enough = False
        if enough:
            size[0] = count
            return cost
        best = bound
        # Try one, two or three further tasks.
        cdef int64_t one, two
        cdef int a = -1, b = -1, c = -1
        if count < MAX_EJECTED:
            for i in range(n):
                if forced[i]:
                    continue
                one = cost + self.penalty[content[i]]
                if one >= best:
                    continue
                enough = True
                for d in range(self.dimensions):
                    if lack[d] > self.gives(content[i], host, key, d):
                        enough = False
                        break
                if enough:
                    best, a, b, c = one, i, -1, -1
        if count + 1 < MAX_EJECTED:
            for i in range(n):
                if forced[i]:
                    continue
                one = cost + self.penalty[content[i]]
                if one + 1 >= best:
                    continue
                for j in range(i):
                    if forced[j]:
                        continue
                    two = one + self.penalty[content[j]]
                    if two >= best:
                        continue
                    enough = True
                    for d in range(self.dimensions):
                        if lack[d] > (
                            self.gives(content[i], host, key, d) + self.gives(content[j], host, key, d)
                        ):
                            enough = False
                            break
                    if enough:
                        best, a, b, c = two, i, j, -1
        if count + 2 < MAX_EJECTED and n <= 40:
            for i in range(n):
                if forced[i]:
                    continue
                one = cost + self.penalty[content[i]]
                if one + 2 >= best:
                    continue
                for j in range(i):
                    if forced[j]:
                        continue
                    two = one + self.penalty[content[j]]
                    if two + 1 >= best:
                        continue
                    for m in range(j):
                        if forced[m] or two + self.penalty[content[m]] >= best:
                            continue
                        enough = True
                        for d in range(self.dimensions):
                            if lack[d] > (
                                self.gives(content[i], host, key, d) + self.gives(content[j], host, key, d)
                                + self.gives(content[m], host, key, d)
                            ):
                                enough = False
                                break
                        if enough:
                            best, a, b, c = two + self.penalty[content[m]], i, j, m
        if a < 0:
            return -1
        out[count] = content[a]
        count += 1
        if b >= 0:
            out[count] = content[b]
            count += 1
        if c >= 0:
            out[count] = content[c]
            count += 1
        size[0] = count
        return best

    cdef void note_limits(self, int job, bint on) noexcept nogil:
        cdef int n
        for n in range(self.rule_start[job], self.rule_start[job + 1]):
            self.forward[self.rule_job[n]] = self.rule_limit[n] if on else 1 << 30
        for n in range(self.back_start[job], self.back_start[job + 1]):
            self.backward[self.back_job[n]] = self.back_limit[n] if on else 1 << 30

    cdef bint swap(self, int one, int two) noexcept nogil:
        """Exchange the hosts of two tasks if both fit afterwards."""
        cdef int here = self.host_of[one], there = self.host_of[two]
        cdef int kind = self.kind_of[one], other = self.kind_of[two]
        if here == there or kind == other:
            return False
        self.take(one)
        self.take(two)
        if self.fits(kind, there) and self.agrees(self.kind_job[kind], there):
            self.put(one, there)
            if self.fits(other, here) and self.agrees(self.kind_job[other], here):
                self.put(two, here)
                return True
            self.take(one)
        self.put(one, here)
        self.put(two, there)
        return False

    def improve(self, int32_t[::1] pool, int steps, int shuffles):
        """Find room for the tasks of the pool, in at most `steps` steps. Ejected tasks join the pool.

        After Nagata and Bräysy, A powerful route minimization heuristic (2009). The task that was ejected last is tried
        first. Its penalty rises if it finds no room. Then the tasks with the lowest total penalty are ejected for it.
        Afterwards `shuffles` random pairs of tasks exchange their hosts if they can. Returns the tasks without a host.
        """
        cdef int size = pool.shape[0], _, task, kind, host, i, h, start, best_host, best_size, found
        stack = np.empty(self.tasks, dtype=np.int32)
        cdef int32_t[::1] waiting = stack
        cdef int32_t out[MAX_EJECTED]
        cdef int32_t best_out[MAX_EJECTED]
        cdef int64_t cost, best
        if not self.hosts:
            return np.array(pool)
        for i in range(size):
            waiting[i] = pool[i]
        with nogil:
            for _ in range(steps):
                if size == 0:
                    break
                task = waiting[size - 1]
                kind = self.kind_of[task]
                host = self.best_host(kind)
                if host >= 0:
                    self.put(task, host)
                    size -= 1
                    continue
                self.penalty[task] += 1
                self.note_limits(self.kind_job[kind], True)
                best, best_host, best_size = <int64_t>1 << 60, -1, 0
                start = <int>(self.roll() % <uint64_t>self.hosts)
                for i in range(self.hosts):
                    h = start + i
                    if h >= self.hosts:
                        h -= self.hosts
                    cost = self.ejection(kind, h, best, out, &found)
                    if cost >= 0 and cost < best:
                        best, best_host, best_size = cost, h, found
                        for found in range(best_size):
                            best_out[found] = out[found]
                self.note_limits(self.kind_job[kind], False)
                if best_host < 0:
                    # No ejection makes room: try another task of the pool first.
                    i = <int>(self.roll() % <uint64_t>size)
                    waiting[size - 1], waiting[i] = waiting[i], waiting[size - 1]
                    continue
                size -= 1
                for i in range(best_size):
                    self.take(best_out[i])
                    waiting[size] = best_out[i]
                    size += 1
                self.put(task, best_host)
                for _ in range(shuffles):
                    found = <int>(self.roll() % <uint64_t>self.tasks)
                    start = <int>(self.roll() % <uint64_t>self.tasks)
                    if self.host_of[found] >= 0 and self.host_of[start] >= 0:
                        self.swap(found, start)
        return stack[:size].copy()


# ---------------------------------------------------------------------------------------------- the most valuable host


@cython.final
@cython.auto_pickle(False)
cdef class Pricer:
    """The most valuable content of one host of a kind: a bounded knapsack in D dimensions, by branch and bound.

    Bounds come from one surrogate dimension: the sum of all dimensions, weighted by multipliers. A subgradient descent
    for the linear relaxation finds the multipliers. Bounds are valid for any multipliers; better ones save work.
    """

    cdef readonly int kinds, dimensions
    cdef readonly int64_t nodes
    cdef int64_t[::1] capacity, value, rest, sorted_value
    cdef int64_t[:, ::1] size, sorted_size
    cdef int32_t[::1] limit, order, sorted_limit, chosen
    cdef double[::1] multiplier, best_multiplier, gradient, weight
    cdef int length, wanted
    cdef int64_t best, node_limit
    cdef double open_bound
    cdef bint stopped
    cdef list found

    def __init__(self, capacity, size):
        self.capacity = np.ascontiguousarray(capacity, dtype=np.int64)
        self.size = np.ascontiguousarray(size, dtype=np.int64)
        self.kinds, self.dimensions = self.size.shape[0], self.size.shape[1]
        self.value, self.sorted_value = np.zeros(self.kinds, dtype=np.int64), np.zeros(self.kinds, dtype=np.int64)
        self.sorted_size = np.zeros((self.kinds, self.dimensions), dtype=np.int64)
        self.limit, self.order = np.zeros(self.kinds, dtype=np.int32), np.zeros(self.kinds, dtype=np.int32)
        self.sorted_limit = np.zeros(self.kinds, dtype=np.int32)
        self.chosen = np.zeros(self.kinds, dtype=np.int32)
        self.rest = np.zeros(self.dimensions, dtype=np.int64)
        self.multiplier, self.gradient = np.zeros(self.dimensions), np.zeros(self.dimensions)
        self.best_multiplier, self.weight = np.zeros(self.dimensions), np.zeros(self.kinds)

    def price(self, value, limit, int64_t threshold, int64_t node_limit, int wanted=20):
        """Find patterns worth more than `threshold`, and an upper bound for all patterns.

        Args: value int64[K], each up to 2**40; limit int32[K], the maximum of each kind. Returns (bound, patterns):
        patterns int32[n, K], ascending by value, at most `wanted`. If `node_limit` suffices, the bound is the exact
        maximum, or the threshold if no pattern exceeds the threshold.
        """
        self.value = np.ascontiguousarray(value, dtype=np.int64)
        self.limit = np.ascontiguousarray(limit, dtype=np.int32)
        self.best, self.node_limit, self.nodes, self.wanted = threshold, node_limit, 0, wanted
        self.stopped, self.open_bound, self.found = False, 0.0, []
        self._multipliers()
        self._sort()
        for d in range(self.dimensions):
            self.rest[d] = self.capacity[d]
        self._search(0, 0)
        bound = self.best
        if self.stopped:
            bound = max(bound, int(self.open_bound + 1.0))
        patterns = np.array(self.found[-wanted:], dtype=np.int32).reshape(-1, self.kinds)
        return bound, patterns

    cdef void _multipliers(self):
        """Minimise μ·capacity + Σ limit · max(0, value - μ·size) over μ ≥ 0, roughly."""
        cdef int d, k, step, used = 0
        cdef double total, reduced, highest, lowest = 1e300, norm, length
        for d in range(self.dimensions):
            if self.capacity[d] > 0:
                used += 1
        # Start with half of the multipliers that cover every kind: the largest value per unit of the mean resource.
        if self.best_multiplier[0] == 0.0 and np.asarray(self.best_multiplier).sum() == 0.0:
            highest = 0.0
            for k in range(self.kinds):
                total = 0.0
                for d in range(self.dimensions):
                    if self.capacity[d] > 0:
                        total += <double>self.size[k, d] / <double>self.capacity[d] / used
                if total > 0:
                    highest = max(highest, self.value[k] / total)
            for d in range(self.dimensions):
                self.multiplier[d] = highest / used / 2 if self.capacity[d] > 0 else 0.0
        else:
            for d in range(self.dimensions):
                self.multiplier[d] = self.best_multiplier[d]
        # The unit is the whole host: multiplier[d] is the value of its total amount in dimension d.
        for step in range(400):
            total = 0.0
            for d in range(self.dimensions):
                total += self.multiplier[d]
                self.gradient[d] = 1.0
            for k in range(self.kinds):
                if self.limit[k] <= 0:
                    continue
                reduced = self.value[k]
                for d in range(self.dimensions):
                    if self.capacity[d] > 0:
                        reduced -= self.multiplier[d] * self.size[k, d] / self.capacity[d]
                if reduced > 0:
                    total += reduced * self.limit[k]
                    for d in range(self.dimensions):
                        if self.capacity[d] > 0:
                            self.gradient[d] -= <double>self.size[k, d] / self.capacity[d] * self.limit[k]
            if total < lowest:
                lowest = total
                for d in range(self.dimensions):
                    self.best_multiplier[d] = self.multiplier[d]
            norm = 0.0
            for d in range(self.dimensions):
                norm += self.gradient[d] * self.gradient[d]
            if norm <= 1e-12:
                break
            length = lowest * 0.3 / (1.0 + step * 0.2) / norm ** 0.5
            for d in range(self.dimensions):
                self.multiplier[d] = max(0.0, self.multiplier[d] - length * self.gradient[d])

    cdef void _sort(self):
        """Sort kinds by value per unit of the surrogate. Kinds without value and kinds that do not fit are left out."""
        cdef int d, k, n
        cdef int64_t fit
        cdef double weight
        ratio = np.full(self.kinds, -1.0)
        for k in range(self.kinds):
            weight = 0.0
            fits = self.limit[k] > 0 and self.value[k] > 0
            for d in range(self.dimensions):
                if self.size[k, d] > self.capacity[d]:
                    fits = False
                elif self.capacity[d] > 0:
                    weight += self.best_multiplier[d] * self.size[k, d] / self.capacity[d]
            if fits:
                ratio[k] = self.value[k] / weight if weight > 0 else 1e300
        order = np.argsort(-ratio, kind="stable")
        self.length = int((ratio > 0).sum())
        for n in range(self.length):
            k = order[n]
            self.order[n], self.sorted_value[n] = k, self.value[k]
            # The limit is at most what fits on an empty host. A higher limit would make the bound weaker.
            self.sorted_limit[n] = self.limit[k]
            self.weight[n] = 0.0
            for d in range(self.dimensions):
                self.sorted_size[n, d] = self.size[k, d]
                if self.size[k, d] > 0:
                    fit = self.capacity[d] // self.size[k, d]
                    self.sorted_limit[n] = <int32_t>min(<int64_t>self.sorted_limit[n], fit)
                if self.capacity[d] > 0:
                    self.weight[n] += self.best_multiplier[d] * self.size[k, d] / self.capacity[d]

    cdef double _bound(self, int level) noexcept nogil:
        """The value that the kinds from `level` on can add within the rest of the surrogate, fractions included."""
        cdef int d, n
        cdef double rest = 0.0, total = 0.0, part
        for d in range(self.dimensions):
            if self.capacity[d] > 0:
                rest += self.best_multiplier[d] * self.rest[d] / self.capacity[d]
        for n in range(level, self.length):
            part = self.weight[n] * self.sorted_limit[n]
            if part >= rest and self.weight[n] > 0:
                total += self.sorted_value[n] * (rest / self.weight[n])
                break
            rest -= part
            total += <double>self.sorted_value[n] * self.sorted_limit[n]
        return total * (1.0 + 1e-12) + 1e-3

    cdef void _search(self, int level, int64_t value):
        cdef int d, a, count
        cdef int64_t fit
        cdef double bound
        while True:
            if value > self.best:
                self.best = value
                pattern = np.zeros(self.kinds, dtype=np.int32)
                for a in range(level):
                    pattern[self.order[a]] = self.chosen[a]
                self.found.append(pattern)
                if len(self.found) > 4 * self.wanted:
                    del self.found[: 2 * self.wanted]
            if level == self.length:
                return
            count = self.sorted_limit[level]
            for d in range(self.dimensions):
                if self.sorted_size[level, d] > 0:
                    fit = self.rest[d] // self.sorted_size[level, d]
                    if fit < count:
                        count = <int>fit
            if count > 0:
                break
            self.chosen[level] = 0
            level += 1
        for d in range(self.dimensions):
            self.rest[d] -= count * self.sorted_size[level, d]
        for a in range(count, -1, -1):
            bound = value + <double>a * self.sorted_value[level] + self._bound(level + 1)
            if bound < self.best + 1:
                break
            self.nodes += 1
            if self.stopped or self.nodes > self.node_limit:
                # With fewer tasks of this kind, the bound is not higher.
                self.stopped = True
                self.open_bound = max(self.open_bound, bound)
                break
            self.chosen[level] = a
            self._search(level + 1, value + a * self.sorted_value[level])
            for d in range(self.dimensions):
                self.rest[d] += self.sorted_size[level, d]
        else:
            # The loop has freed one task more than the host held. Take one again.
            for d in range(self.dimensions):
                self.rest[d] -= self.sorted_size[level, d]
            return
        for d in range(self.dimensions):
            self.rest[d] += a * self.sorted_size[level, d]
