"""The compiled matcher: integer arrays in, integer arrays out, by the rules of docs/matcher.md.

It knows slots, classes, keys and claims, but not the agents and tasks that they represent. Amounts are int64: a disk of
several terabytes, in thousandths of a megabyte, needs more than 32 bits. They are integers so that three requests of
0.1 fit into 0.3. ``match/plain.py`` documents each method.
"""

cimport cython
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

import numpy as np

from jobcloud._match_types import (
    MatchError,
    MatchStateError,
    Nearest,
    Preemption,
    Refusal,
    State,
    allowed_slots,
    amount_rows,
    amounts,
    attribute_values,
    check_masked,
    check_present,
    class_numbers,
    class_rules,
    decode,
    encode,
    engine_name,
    fitness_weights,
    free_rows,
    group_limit,
    host_masks,
    custom_score,
    preemptible,
    release_numbers,
    reopened,
    restored_fitness,
    slot_penalties,
    truth,
    whole,
)
from jobcloud import _match_types as limits

cdef enum:
    ATTRIBUTES = 64  # limits.MAX_ATTRIBUTES
    HOST_ABSENT = 0
    HOST_ENABLED = 1
    HOST_DISABLED = 2
    CLASS_ABSENT = 0
    CLASS_USABLE = 1
    CLASS_REMOVED = 2
    NONE = -1
    UNTRIED = -2
    RULE_AT_MOST = 0
    RULE_NEAR = 1
    RULE_BALANCED = 2
    SHORTAGE_SHIFT = 33
    FIRST_HOSTS = 64  # initial room
    FIRST_CLAIMS = 2048  # a small cluster needs no more; each growth costs as much as a hundred placements
    # These decide whether a class uses a table or a scan. They affect speed only, never the answers.
    MIN_HOSTS_FOR_TABLE = 32  # with fewer hosts, a scan costs no more than a table
    HOSTS_PER_REPLAY = 8  # scoring one host alone costs as much as scoring this many in a scan
    CHANGES_PER_HOST = 2  # of a host between two requests for a class, because a batch tends to fill one host at a time
    MAX_MISSES = 6  # a table that falls behind again and again is not used for up to 2**6 - 2 scans
    IDLE_CHANGES_PER_HOST = 16  # a table that is not asked for during this many is dropped

cdef int64_t SHORTAGE_ONE = <int64_t>1 << 53
cdef int64_t WHOLE_SHORTAGE = <int64_t>1 << 20
cdef int64_t MAX_AMOUNT = limits.MAX_AMOUNT
cdef int64_t MAX_CLAIMED = limits.MAX_CLAIMED
cdef int64_t MAX_GROUP_CLAIMED = limits.MAX_GROUP_CLAIMED
cdef int64_t MAX_CLAIMS = limits.MAX_CLAIMS
cdef uint32_t MAX_GENERATION = limits.MAX_GENERATION
cdef int64_t INDEX_BITS = 0xFFFFFFFF
cdef int64_t MAX_TABLE_BYTES = <int64_t>1 << 30  # further classes use scans


cdef object grown(table, Py_ssize_t length, int axis):
    """A copy of ``table`` with ``length`` entries on ``axis``; the new entries are zeros."""
    array = np.asarray(table)
    shape = list(array.shape)
    shape[axis] = length
    larger = np.zeros(shape, dtype=array.dtype)
    larger[tuple(slice(n) for n in array.shape)] = array
    return larger


cdef extern from "<stdlib.h>":
    void* aligned_alloc(size_t alignment, size_t size) nogil


cdef extern from "_match_score.h":
    const char* jobcloud_vector_path() nogil
    enum:
        JOBCLOUD_BLOCK
        JOBCLOUD_LINE
        JOBCLOUD_INFEASIBLE
        PLANES
        SCALE
    ctypedef struct Term "jobcloud_term":
        const int32_t* counts
        const int32_t* value
        int32_t low
        int32_t high
        int32_t weight
        int32_t graded
    ctypedef struct Need "jobcloud_need":
        int32_t amount
        int32_t mantissa
        int32_t shift
    ctypedef struct View "jobcloud_view":
        int dimensions
        int width
        size_t stride
        const Need* request
        const Need* first
        const int64_t* exact_request
        const int64_t* exact_first
        const int64_t* unclaimed
        const int32_t* planes
        const int32_t* levels
        const int32_t* rows
        const uint8_t* allowed
        const int32_t* key_claims
        int32_t with_key_only
        const int64_t* fitness
        const int32_t* grouped
        int32_t max_per_host
        int32_t wide
        int32_t terms
        const int32_t* penalty
        const int32_t* custom
        Term* term
    ctypedef struct Table "jobcloud_table":
        int32_t* score
        int32_t* line
        int32_t* top
        int32_t lines
        int32_t tops
        int32_t best
        int32_t best_score
        int32_t asks
        int32_t misses
        int32_t wait
        int32_t flat
        uint64_t seen
    void jobcloud_set_need(Need* need, const int64_t* amount, int dimensions) noexcept nogil
    uint32_t jobcloud_scale(int64_t capacity) noexcept nogil
    int jobcloud_is_tiny(const Need* need, int max_exponent, int dimensions) noexcept nogil
    void jobcloud_vote(
        int64_t* votes, const int64_t* need, const int64_t* median, int dimensions, int by
    ) noexcept nogil
    int jobcloud_bits(uint64_t amount) noexcept nogil
    int64_t jobcloud_in_order(int64_t* amount, int n, int at) noexcept nogil
    int jobcloud_count_dimensions(uint8_t* counted, const int64_t* votes, int dimensions) noexcept nogil
    int32_t jobcloud_size(
        const int64_t* total, const int64_t* median, const uint8_t* counted, int dimensions
    ) noexcept nogil
    void jobcloud_refresh_row(
        int32_t* row, const int64_t* unclaimed, const int64_t* total, const uint8_t* counted, int32_t size, int open,
        int dimensions
    ) noexcept nogil
    void jobcloud_copy_to_planes(
        int32_t* planes, int32_t* levels, size_t stride, const int32_t* row, int host, int dimensions
    ) noexcept nogil
    int32_t jobcloud_score_block(const View* view, int base, int n, int32_t* out) noexcept nogil
    int32_t jobcloud_score_one(const View* view, int host) noexcept nogil
    int32_t jobcloud_excess(const Term* term, int host) noexcept nogil
    int jobcloud_find(const int32_t* of, int32_t value) noexcept nogil
    int jobcloud_whole_lines(int words) noexcept nogil
    void jobcloud_rebuild(Table* table, const View* view, int hosts) noexcept nogil
    void jobcloud_rescore(Table* table, const View* view, int host) noexcept nogil
    int jobcloud_replay(
        Table* table, const View* view, const uint64_t* changed_at, const int32_t* older, int newest, int max_hosts
    ) noexcept nogil
    int jobcloud_best(Table* table) noexcept nogil


# A rule of a class. The rules of a class form a linked list, as do the rules that count a group, in the order in which
# they were added. Rules that count the same group by the same attribute share one ValueCounts.
cdef struct Rule:
    int32_t cls
    int32_t kind
    int32_t group
    int32_t attribute
    int32_t value_counts      # NONE: by host
    int32_t number
    int32_t weight
    int32_t least         # of a balanced rule: the lowest count of all eligible values
    int32_t next_of_class
    int32_t next_of_group
    uint8_t* eligible     # of a balanced rule, by value
    uint64_t layout       # the value of ``layout`` for which ``eligible`` is current


# hosts[starts[v]:starts[v + 1]] are the hosts that had value v when the attribute was set.
cdef struct Attribute:
    bint known
    int32_t values  # one past the highest
    int32_t* starts
    int32_t* hosts


# The live claims of a group by the values of an attribute.
cdef struct ValueCounts:
    int32_t group
    int32_t attribute
    int32_t users
    int32_t next_of_group
    int32_t* counts       # by value


cdef const int64_t[::1] amount_row(str name, value, int dimensions):
    """The same as ``amounts``; faster for a valid array."""
    cdef const int64_t[::1] row
    cdef bint valid
    cdef int d
    if type(value) is np.ndarray and value.dtype == np.int64 and value.shape == (dimensions,):
        if value.flags.c_contiguous and value.flags.aligned:
            row, valid = value, True
            for d in range(dimensions):
                valid = valid and 0 <= row[d] <= MAX_AMOUNT
            if valid:
                return row
    return amounts(name, value, dimensions)


cdef int64_t table_size(int lines, int tops) noexcept nogil:
    """Bytes of a table, in whole cache lines."""
    cdef int64_t all_lines = <int64_t>lines + tops + jobcloud_whole_lines(tops)
    return all_lines * JOBCLOUD_LINE * <int64_t>sizeof(int32_t)


def vector_path():
    """The vector instructions that the scans use on this machine."""
    return jobcloud_vector_path().decode()


cdef class Matcher  # defined below


@cython.final
@cython.internal
@cython.no_gc
@cython.freelist(8)
@cython.auto_pickle(False)
cdef class Use:
    """A call's claim on a matcher, in a local variable of the call: it ends when the call returns or raises."""

    cdef Matcher of

    def __dealloc__(self):
        if self.of is not None:
            self.of.busy = False


cdef Use claimed(Matcher matcher):
    """Claim the matcher for one call. Raises MatchStateError if another call has it.

    Each method of the matcher does this first. The GIL makes it atomic, because no Python code runs before the claim.
    """
    cdef Use use = Use.__new__(Use)
    if matcher.busy:
        raise MatchStateError(
            "another call is using this matcher, from another thread or around this one; make one call at a time"
        )
    matcher.busy = True
    use.of = matcher
    return use


@cython.final
@cython.auto_pickle(False)
cdef class Matcher:
    """Places task classes on hosts, by fitness.

    ``dimensions``: the number of resources of a host, 1 to 64; the caller chooses their order. ``engine``: "index"
    keeps the scores of each class and scores again the hosts that changed, "scan" scores all hosts for each task,
    "tables" is the index without its cost estimates, for tests; the answers are the same. ``match/plain.py`` documents
    each method, ``docs/matcher.md`` the rules. A matcher takes one call at a time; ``match`` releases the GIL.
    """

    cdef readonly int dimensions
    cdef readonly str engine
    cdef readonly int64_t evaluations  # scores computed so far
    cdef bint indexed
    cdef int64_t[::1] weights  # of the parts of the score, in the order of fitness_names
    cdef bint even_only
    cdef int max_exponent  # the largest exponent of 1 / capacity of any host so far
    cdef readonly object custom_fitness  # the fitness function; None if the fitness is built in
    cdef readonly int64_t fitness_calls  # how often it was called
    cdef bint eager  # use tables without cost estimates
    cdef bint busy  # a call has claimed the matcher
    # The number of events after which a refused class might fit. A new claim is none: docs/matcher.md, "Refused tasks".
    cdef uint64_t capacity_epoch

    cdef int hosts_end          # one past the highest slot in use
    cdef int hosts_hint         # all slots below are in use
    cdef int64_t[:, ::1] unclaimed  # [slots, D]
    cdef int64_t[:, ::1] total
    cdef int width                  # of a row
    cdef int32_t[:, ::1] rows       # [slots, width]: the level and the planes of each host
    cdef int32_t[:, ::1] planes     # [D * PLANES, slots]: the planes in columns
    cdef int32_t[::1] levels        # [slots]
    cdef uint64_t planes_seen       # the change up to which ``planes`` and ``levels`` are current
    cdef uint8_t[::1] host_status
    cdef int32_t[::1] host_claims  # head of a linked list
    cdef uint8_t[::1] host_open      # 1: enabled and without an exclusive claim
    cdef int32_t[::1] host_count     # live claims
    cdef int32_t[::1] host_exclusive  # live claims of exclusive classes
    cdef int32_t[::1] host_size      # relative to ``median``, over the dimensions that count
    # By dimension. The classes in use vote, relative to ``median``, for the dimensions that count for "even".
    cdef int64_t[::1] votes
    cdef bint voted                  # there are votes since ``counted`` was found
    cdef uint8_t[::1] counted
    # By dimension, over the hosts that have it. While the counts place the median capacity between ``median`` and
    # ``next_median``, a change of one host changes no other host's size.
    cdef int64_t[::1] median        # the median capacity, rounded down to its 6 highest bits
    cdef int64_t[::1] next_median   # the next number that is rounded like this
    cdef int64_t[::1] hosts_with    # the number of hosts
    cdef int64_t[::1] below_median  # the number of hosts with less than ``median``
    cdef int64_t[::1] below_next    # the number of hosts with less than ``next_median``
    cdef uint64_t layout             # counts the events that may change which values are eligible

    cdef Attribute attributes[ATTRIBUTES]
    cdef int32_t[:, ::1] value_of    # [attributes, slots], NONE: no value

    # The hosts as a list, ordered by their last change.
    cdef uint64_t changed          # the number of changes of hosts so far
    cdef uint64_t[::1] changed_at  # its value after the last change of each host; 0: not in the list
    cdef int newest                # the host that changed last
    cdef int32_t[::1] newer
    cdef int32_t[::1] older

    cdef int classes_end
    cdef int classes_hint           # all classes below are in use; the same for the other hints
    cdef int masks_hint, penalties_hint, keys_hint
    cdef int64_t[:, ::1] request  # [classes, D]
    cdef int64_t[:, ::1] first    # request + shared part
    cdef int32_t[:, ::1] needs    # [classes, 6 D]: request and first as Need[D] each
    cdef uint8_t[::1] class_wide  # needs more than 32 bits
    cdef uint8_t[::1] class_status
    cdef int32_t[::1] class_key   # row in the key tables
    cdef int32_t[::1] class_mask  # row in the mask table
    cdef int32_t[::1] class_group  # row in the group table
    cdef int32_t[::1] class_max_per_host  # of claims of its group, itself included; 0: no limit
    cdef int64_t[::1] class_claims
    cdef uint8_t[::1] class_exclusive
    cdef int32_t[::1] class_rule   # head of the list of its rules
    cdef int32_t[::1] class_penalty  # row in the penalty table
    cdef int32_t[:, ::1] penalty   # [rows, slots]
    cdef int32_t[:, ::1] custom_scores  # [classes, slots], results of the custom fitness
    cdef uint64_t[::1] custom_scores_seen  # [classes], the change up to which they are current
    cdef uint8_t[::1] penalty_used
    cdef uint64_t[::1] class_refused  # value of ``capacity_epoch`` when the class was last refused
    cdef Table* tables          # [classes]
    cdef Py_ssize_t tables_room
    cdef int64_t table_bytes
    cdef int misses             # recent misses of all tables; the more, the later a class gets a table
    cdef uint64_t swept         # the change at which idle tables were last dropped
    cdef int emptied              # removed classes whose last claim has ended

    cdef dict key_rows
    cdef int64_t[:, ::1] shared   # [keys, D]
    cdef int64_t[::1] key_number
    cdef int32_t[::1] key_classes
    cdef int32_t[:, ::1] key_claims     # [keys, slots]: live claims with the key

    cdef dict group_rows
    cdef int64_t[::1] group_number
    cdef int32_t[::1] group_classes  # plus one if it has a limit
    cdef uint8_t[::1] group_limited
    cdef int64_t[:, ::1] group_limit  # [groups, D]
    cdef int64_t[:, ::1] group_used
    cdef int32_t[:, ::1] grouped  # [groups, slots]: live claims of the group
    cdef int64_t[::1] group_claims
    cdef int32_t[::1] group_rule    # head of the list of rules that count it
    cdef int32_t[::1] group_value_counts  # head of the list of its ValueCounts

    cdef Rule* rules
    cdef int rules_room
    cdef int free_rule            # head of a list by next_of_class
    cdef ValueCounts* value_counts
    cdef int value_counts_room

    cdef uint8_t[:, ::1] allowed  # [masks, slots]
    cdef uint8_t[::1] mask_used

    cdef int64_t claims_end
    cdef int64_t claims_live
    cdef int32_t free_claim       # head of a linked stack
    cdef uint32_t[::1] generation
    cdef int32_t[::1] claim_slot
    cdef int32_t[::1] claim_class
    cdef int32_t[::1] claim_next
    cdef int32_t[::1] claim_before

    def __cinit__(self):
        self.tables = NULL
        self.rules = NULL
        self.value_counts = NULL
        self.tables_room = 0
        self.rules_room = self.value_counts_room = 0
        memset(self.attributes, 0, sizeof(self.attributes))

    def __dealloc__(self):
        # Nothing here may be looked up in Python: a matcher may be freed after the modules, at the end of the process.
        cdef Py_ssize_t i
        for i in range(self.tables_room):
            free(self.tables[i].score)
        for i in range(self.rules_room):
            free(self.rules[i].eligible)
        for i in range(self.value_counts_room):
            free(self.value_counts[i].counts)
        for i in range(ATTRIBUTES):
            free(self.attributes[i].starts)
            free(self.attributes[i].hosts)
        free(self.tables)
        free(self.rules)
        free(self.value_counts)

    def __init__(self, dimensions, *, engine="index", fitness="even"):
        cdef Use _use = claimed(self)
        if self.tables_room:
            raise MatchStateError("a matcher is initialised only once")
        self.dimensions = whole("dimensions", dimensions, 1, limits.MAX_DIMENSIONS)
        self.engine = engine_name(engine)
        self.eager = self.engine == "tables"
        self.weights = np.array(fitness_weights(fitness, self.dimensions), dtype=np.int64)
        self.even_only = self.fitness == {"even": limits.WHOLE_WEIGHT}
        self.custom_fitness = fitness if callable(fitness) else None
        self.indexed = self.eager or self.engine == "index"
        self.newest = NONE
        self.changed_at = np.zeros(FIRST_HOSTS, dtype=np.uint64)
        self.newer = np.zeros(FIRST_HOSTS, dtype=np.int32)
        self.older = np.zeros(FIRST_HOSTS, dtype=np.int32)
        self.grow_tables(8)
        self.capacity_epoch = self.layout = 1
        self.misses = 0
        self.free_rule = NONE
        self.hosts_end = self.hosts_hint = self.classes_end = self.emptied = 0
        self.unclaimed = np.zeros((FIRST_HOSTS, self.dimensions), dtype=np.int64)
        self.total = np.zeros((FIRST_HOSTS, self.dimensions), dtype=np.int64)
        self.width = (1 + PLANES * self.dimensions + 3) // 4 * 4
        self.rows = np.zeros((FIRST_HOSTS, self.width), dtype=np.int32)
        self.planes = np.zeros((PLANES * self.dimensions, FIRST_HOSTS), dtype=np.int32)
        self.levels = np.full(FIRST_HOSTS, NONE, dtype=np.int32)  # no task fits an absent host
        self.host_status = np.zeros(FIRST_HOSTS, dtype=np.uint8)
        self.host_claims = np.full(FIRST_HOSTS, NONE, dtype=np.int32)
        self.host_open = np.zeros(FIRST_HOSTS, dtype=np.uint8)
        self.host_count = np.zeros(FIRST_HOSTS, dtype=np.int32)
        self.host_exclusive = np.zeros(FIRST_HOSTS, dtype=np.int32)
        self.host_size = np.zeros(FIRST_HOSTS, dtype=np.int32)
        self.median = np.zeros(self.dimensions, dtype=np.int64)
        self.votes = np.zeros(self.dimensions, dtype=np.int64)
        self.counted = np.ones(self.dimensions, dtype=np.uint8)
        self.voted = True
        self.hosts_with = np.zeros(self.dimensions, dtype=np.int64)
        self.below_median = np.zeros(self.dimensions, dtype=np.int64)
        self.next_median = np.zeros(self.dimensions, dtype=np.int64)
        self.below_next = np.zeros(self.dimensions, dtype=np.int64)
        self.value_of = np.full((1, FIRST_HOSTS), NONE, dtype=np.int32)
        self.request = np.zeros((8, self.dimensions), dtype=np.int64)
        self.first = np.zeros((8, self.dimensions), dtype=np.int64)
        self.needs = np.zeros((8, 6 * self.dimensions), dtype=np.int32)
        self.class_wide = np.zeros(8, dtype=np.uint8)
        self.class_status = np.zeros(8, dtype=np.uint8)
        self.class_key = np.zeros(8, dtype=np.int32)
        self.class_mask = np.zeros(8, dtype=np.int32)
        self.class_group = np.zeros(8, dtype=np.int32)
        self.class_max_per_host = np.zeros(8, dtype=np.int32)
        self.class_claims = np.zeros(8, dtype=np.int64)
        self.class_exclusive = np.zeros(8, dtype=np.uint8)
        self.class_rule = np.zeros(8, dtype=np.int32)
        self.class_penalty = np.zeros(8, dtype=np.int32)
        self.penalty = np.zeros((1, FIRST_HOSTS), dtype=np.int32)
        self.custom_scores = np.zeros((8 if self.custom_fitness is not None else 0, FIRST_HOSTS), dtype=np.int32)
        self.custom_scores_seen = np.zeros(8, dtype=np.uint64)
        self.penalty_used = np.zeros(1, dtype=np.uint8)
        self.class_refused = np.zeros(8, dtype=np.uint64)
        self.key_rows = {}
        self.shared = np.zeros((4, self.dimensions), dtype=np.int64)
        self.key_number = np.zeros(4, dtype=np.int64)
        self.key_classes = np.zeros(4, dtype=np.int32)
        self.key_claims = np.zeros((4, FIRST_HOSTS), dtype=np.int32)
        self.group_rows = {}
        self.group_number = np.zeros(4, dtype=np.int64)
        self.group_classes = np.zeros(4, dtype=np.int32)
        self.group_limited = np.zeros(4, dtype=np.uint8)
        self.group_limit = np.zeros((4, self.dimensions), dtype=np.int64)
        self.group_used = np.zeros((4, self.dimensions), dtype=np.int64)
        self.grouped = np.zeros((4, FIRST_HOSTS), dtype=np.int32)
        self.group_claims = np.zeros(4, dtype=np.int64)
        self.group_rule = np.full(4, NONE, dtype=np.int32)
        self.group_value_counts = np.full(4, NONE, dtype=np.int32)
        self.allowed = np.zeros((1, FIRST_HOSTS), dtype=np.uint8)
        self.mask_used = np.zeros(1, dtype=np.uint8)
        self.claims_end = self.claims_live = 0
        self.free_claim = NONE
        self.generation = np.zeros(FIRST_CLAIMS, dtype=np.uint32)
        self.claim_slot = np.zeros(FIRST_CLAIMS, dtype=np.int32)
        self.claim_class = np.zeros(FIRST_CLAIMS, dtype=np.int32)
        self.claim_next = np.zeros(FIRST_CLAIMS, dtype=np.int32)
        self.claim_before = np.zeros(FIRST_CLAIMS, dtype=np.int32)

    @property
    def fitness(self):
        names = limits.fitness_names(self.dimensions)
        return {name: weight for name, weight in zip(names, np.asarray(self.weights).tolist()) if weight}

    # ---- hosts

    def add_host(self, capacity):
        cdef Use _use = claimed(self)
        cdef const int64_t[::1] amount = amounts("capacity", capacity, self.dimensions)
        self._check_room(1)
        return self._add_host(amount)

    def add_hosts(self, capacities):
        cdef Use _use = claimed(self)
        cdef const int64_t[:, ::1] rows = amount_rows("capacities", capacities, self.dimensions)
        cdef Py_ssize_t i
        self._check_room(rows.shape[0])
        slots = np.empty(rows.shape[0], dtype=np.int32)
        cdef int32_t[::1] slot = slots
        for i in range(rows.shape[0]):
            slot[i] = self._add_host(rows[i])
        return slots

    cdef int _check_room(self, Py_ssize_t more) except -1:
        if self.hosts_end + more <= limits.MAX_SLOTS:
            return 0
        if np.count_nonzero(np.asarray(self.host_status)[: self.hosts_end]) + more > limits.MAX_SLOTS:
            raise MatchError(f"a matcher holds at most {limits.MAX_SLOTS} hosts; remove some first")

    cdef int _add_host(self, const int64_t[::1] amount) except -1:
        cdef int slot = self.hosts_hint
        while slot < self.hosts_end and self.host_status[slot] != HOST_ABSENT:
            slot += 1
        self._room_for_hosts(slot + 1)
        self._set_status(slot, HOST_ENABLED)
        self._set_capacity(slot, amount)
        self.hosts_hint = slot + 1
        self.hosts_end = max(self.hosts_end, slot + 1)
        return slot

    def set_host(self, slot, capacity):
        cdef Use _use = claimed(self)
        cdef int at = self._host(slot)
        cdef const int64_t[::1] amount = amounts("capacity", capacity, self.dimensions)
        self._set_capacity(at, amount)

    def set_free(self, slots, free):  # no-cython-lint
        cdef Use _use = claimed(self)
        numbers, amount = free_rows(slots, free, self.dimensions)
        cdef const int64_t[::1] number = numbers
        cdef int64_t[:, ::1] rows = amount.copy()
        cdef Py_ssize_t i
        cdef int d, at
        for i in range(number.shape[0]):
            self._host(number[i])
        for i in range(number.shape[0]):
            at = <int>number[i]
            for d in range(self.dimensions):
                rows[i, d] = min(rows[i, d] + self.total[at, d] - self.unclaimed[at, d], limits.MAX_AMOUNT)
            self._set_capacity(at, rows[i])
        return np.asarray(rows)

    def remove_host(self, slot):
        cdef Use _use = claimed(self)
        cdef int at = self._host(slot)
        cdef int d
        cdef Py_ssize_t i
        gone = self._claims_on(at)
        cdef const int64_t[::1] ids = gone
        for i in range(ids.shape[0]):
            self.end_claim(<int32_t>(ids[i] & INDEX_BITS))
        self._drop_emptied()
        self._set_status(at, HOST_ABSENT)
        for d in range(self.dimensions):
            self.count_capacity(d, self.total[at, d], -1)
            self.unclaimed[at, d] = self.total[at, d] = self.rows[at, 1 + PLANES * d + SCALE] = 0
        self.host_size[at] = 0
        for i in range(self.allowed.shape[0]):
            self.allowed[i, at] = 0
        for i in range(self.penalty.shape[0]):
            self.penalty[i, at] = 0
        for i in range(self.value_of.shape[0]):
            self.value_of[i, at] = NONE
        self.touch(at)
        self.capacity_epoch += 1
        self.hosts_hint = min(self.hosts_hint, at)
        while self.hosts_end > 0 and self.host_status[self.hosts_end - 1] == HOST_ABSENT:
            self.hosts_end -= 1
        return gone

    def enable_host(self, slot, on):
        cdef Use _use = claimed(self)
        cdef int at = self._host(slot)
        self._set_status(at, HOST_ENABLED if truth("on", on) else HOST_DISABLED)
        self.touch(at)
        self.capacity_epoch += 1

    def free(self, slot):
        cdef Use _use = claimed(self)
        cdef int at = self._host(slot)
        return np.asarray(self.unclaimed)[at].copy()

    def capacity(self, slot):
        cdef Use _use = claimed(self)
        cdef int at = self._host(slot)
        return np.asarray(self.total)[at].copy()

    # ---- classes

    def set_attribute(self, attribute, values):
        cdef Use _use = claimed(self)
        cdef int number = whole("attribute", attribute, 0, limits.MAX_ATTRIBUTES - 1)
        of_slot = np.full(self.hosts_end, NONE, dtype=np.int32)
        if values is not None:
            given = attribute_values(values)
            check_present("values", given >= 0, self._present())
            of_slot[: len(given)] = given[: self.hosts_end]
        self._write_attribute(number, of_slot, values is not None)

    def add_class(
        self, request, *, shared_key=-1, shared=None, allowed=None, group=-1, max_per_host=0, rules=(),
        exclusive=False, penalty=None,
    ):
        cdef Use _use = claimed(self)
        cdef const int64_t[::1] amount = amount_row("request", request, self.dimensions)
        number = whole("shared_key", shared_key, -1, limits.MAX_KEY)
        if shared is not None and number < 0:
            raise MatchError("shared is given without a shared_key; name the key that these amounts belong to")
        if shared is not None:
            shared_array = amounts("shared", shared, self.dimensions)
        else:
            shared_array = None if number < 0 else np.zeros(self.dimensions, dtype=np.int64)
        mask = None if allowed is None else self._checked_mask(allowed)
        self._check_key(number, shared_array)
        of_group = group_limit(group, max_per_host)
        bound = class_rules(rules)
        alone = truth("exclusive", exclusive)
        costs = None if penalty is None else self._checked_penalty(penalty)
        cdef int cls = self._lowest_free_class()
        self._put_class(cls, CLASS_USABLE, amount, number, shared_array, mask, of_group, bound, alone, costs)
        return cls

    def set_allowed(self, cls, allowed):
        cdef Use _use = claimed(self)
        cdef int at = self._class(cls)
        mask = None if allowed is None else self._checked_mask(allowed)
        if mask is None:
            self.leave_mask(at)
        else:
            if self.class_mask[at] < 0:
                self.class_mask[at] = self._take_mask()
            self._write_mask(self.class_mask[at], mask)
        self.drop_table(at)
        self.custom_scores_seen[at] = 0
        self.invalidate_balances(at)
        self.capacity_epoch += 1

    def set_penalty(self, cls, penalty):
        cdef Use _use = claimed(self)
        cdef int at = self._class(cls)
        costs = None if penalty is None else self._checked_penalty(penalty)
        self._put_penalty(at, costs)
        self.drop_table(at)

    def set_host_masks(self, slot, classes, allowed, penalty):
        cdef Use _use = claimed(self)
        cdef int at = self._host(slot)
        cdef Py_ssize_t i
        numbers, may, costs = host_masks(classes, allowed, penalty)
        cdef const int64_t[::1] cls = numbers
        cdef const uint8_t[::1] may_use = may
        cdef const int64_t[::1] cost = costs
        self._check_classes(cls)
        for i in range(cls.shape[0]):
            if self.class_mask[cls[i]] < 0 and not may_use[i] or self.class_penalty[cls[i]] < 0 and cost[i]:
                check_masked(
                    cls[i], self.class_mask[cls[i]] >= 0, may_use[i], self.class_penalty[cls[i]] >= 0, cost[i]
                )
        for i in range(cls.shape[0]):
            if self.class_mask[cls[i]] >= 0:
                self.allowed[self.class_mask[cls[i]], at] = may_use[i]
            if self.class_penalty[cls[i]] >= 0:
                self.penalty[self.class_penalty[cls[i]], at] = <int32_t>cost[i]
        self.layout += 1
        self.touch(at)
        self.capacity_epoch += 1

    def set_group_limit(self, group, limit):
        cdef Use _use = claimed(self)
        number = whole("group", group, 0, limits.MAX_KEY)
        amount = None if limit is None else amounts("limit", limit, self.dimensions)
        cdef int row = self.group_rows.get(number, NONE)
        if amount is None:
            if row >= 0 and self.group_limited[row]:
                np.asarray(self.group_limit)[row] = MAX_GROUP_CLAIMED
                self.group_limited[row] = 0
                self._leave_group(row)
        else:
            if row < 0 or not self.group_limited[row]:
                if np.asarray(self.group_limited).sum() >= limits.MAX_CLASSES:
                    raise MatchError(f"a matcher holds at most {limits.MAX_CLASSES} group limits; lift some first")
                row = self._take_group(number)
                self.group_limited[row] = 1
            np.asarray(self.group_limit)[row] = amount
        self.capacity_epoch += 1

    def remove_class(self, cls):
        cdef Use _use = claimed(self)
        cdef int at = self._class(cls)
        self.class_status[at] = CLASS_REMOVED
        self.drop_table(at)
        if self.class_claims[at] == 0:
            self._drop_class(at)

    # ---- placing, releasing, explaining

    def match(self, classes, *, limit=-1):
        cdef Use _use = claimed(self)
        return self._match(class_numbers(classes), whole("limit", limit, -1, 2**63 - 1))

    cdef tuple _match(self, wanted, int64_t left):
        cdef const int64_t[::1] cls = wanted
        cdef Py_ssize_t n = cls.shape[0]
        cdef Py_ssize_t done = 0
        cdef int64_t first_new = self.claims_end
        self._check_classes(cls)
        self._update_sizes()
        slots, ids = np.empty(n, np.int32), np.empty(n, np.int64)
        cdef int32_t[::1] slots_out = slots
        cdef int64_t[::1] ids_out = ids
        for done in range(n):
            slots_out[done], ids_out[done] = UNTRIED, NONE
        done = 0
        if left < 0:
            left = n
        self.drop_idle_tables()
        try:
            while True:
                if self.custom_fitness is not None:
                    done = self.place_custom(cls, slots_out, ids_out, done, &left)
                else:
                    with nogil:
                        done = self.place(cls, slots_out, ids_out, done, &left)
                if done == n or left == 0:
                    break
                self._room_for_claim()
        except BaseException:
            self._rollback(ids, first_new)
            raise
        return slots, ids

    def match_gang(self, classes, *, minimum=-1):
        cdef Use _use = claimed(self)
        wanted = class_numbers(classes)
        cdef int64_t needed = whole("minimum", minimum, -1, len(wanted))
        cdef int64_t first_new = self.claims_end
        slots, ids = self._match(wanted, -1)
        if (slots >= 0).sum() < (needed if needed >= 0 else len(wanted)):
            self._rollback(ids, first_new)
            slots[slots >= 0] = UNTRIED
            ids[:] = NONE
        return slots, ids

    def assign(self, cls, slot):
        cdef Use _use = claimed(self)
        cdef int of = self._class(cls)
        cdef int at = self._host(slot)
        cdef const int64_t* need = self.need(of, at)
        cdef int d
        for d in range(self.dimensions):
            if self.total[at, d] - self.unclaimed[at, d] + need[d] > MAX_CLAIMED:
                raise MatchError(
                    f"slot {at} cannot take the claim: more than {MAX_CLAIMED} would be claimed in dimension {d}"
                )
        if self.over_limit(of, True):
            number = self.group_number[self.class_group[of]]
            raise MatchError(f"group {number} cannot take the claim: it would claim more than {MAX_GROUP_CLAIMED}")
        self._room_for_claim()
        return self.start_claim(of, at)

    def release(self, release_ids):
        cdef Use _use = claimed(self)
        cdef const int64_t[::1] ids = release_numbers(release_ids)
        unknown = []
        cdef Py_ssize_t i
        for i in range(ids.shape[0]):
            if self.is_live(ids[i]):
                self.end_claim(<int32_t>(ids[i] & INDEX_BITS))
            else:
                unknown.append(ids[i])
        self._drop_emptied()
        return np.array(unknown, dtype=np.int64)

    def slots(self, release_ids):
        cdef Use _use = claimed(self)
        cdef const int64_t[::1] ids = release_numbers(release_ids)
        cdef Py_ssize_t i
        found = np.empty(ids.shape[0], dtype=np.int32)
        cdef int32_t[::1] slot = found
        for i in range(ids.shape[0]):
            slot[i] = self.claim_slot[ids[i] & INDEX_BITS] if self.is_live(ids[i]) else NONE
        return found

    def refusal(self, cls):
        cdef Use _use = claimed(self)
        cdef int of = self._class(cls)
        cdef int h, d, failing, fewest = self.dimensions + 1
        cdef int hosts = 0, disabled = 0, disallowed = 0, crowded = 0, occupied = 0, ruled_out = 0, fitting = 0
        cdef int nearest = NONE, rule
        cdef int64_t short_by, shortage, smallest = 0
        cdef bint may, broken, ever = False
        cdef View view
        lacking_array, best_array = np.zeros(self.dimensions, np.int64), np.zeros(self.dimensions, np.int64)
        cdef int64_t[::1] lacking = lacking_array
        cdef int64_t[::1] best = best_array
        cdef const int64_t* need
        self.refresh_balances(of)
        self.fill_view(of, &view)
        breaking = np.zeros(view.terms, np.int64)
        for h in range(self.hosts_end):
            if self.host_status[h] == HOST_ABSENT:
                continue
            hosts += 1
            may = self.class_mask[of] < 0 or self.allowed[self.class_mask[of], h] != 0
            ever = ever or (may and self.could_hold(of, h))
            if self.host_status[h] == HOST_DISABLED:
                disabled += 1
                continue
            if not may:
                disallowed += 1
                continue
            if self.class_max_per_host[of] > 0 and self.grouped[self.class_group[of], h] >= self.class_max_per_host[of]:
                crowded += 1
                continue
            if self.host_open[h] == 0 or (self.class_exclusive[of] and self.host_count[h] > 0):
                occupied += 1
                continue
            broken = False
            for rule in range(view.terms - self.class_exclusive[of]):
                if jobcloud_excess(&view.term[rule], h) > 0:
                    breaking[rule] += 1
                    broken = broken or view.term[rule].weight == 0
            if broken:
                ruled_out += 1
                continue
            need = self.need(of, h)
            failing = 0
            shortage = 0
            for d in range(self.dimensions):
                best[d] = max(best[d], self.unclaimed[h, d])
                if self.unclaimed[h, d] < need[d]:
                    failing += 1
                    lacking[d] += 1
                    short_by = need[d] - max(self.unclaimed[h, d], 0)
                    if need[d] > 0:
                        shortage += (short_by * (SHORTAGE_ONE // need[d])) >> SHORTAGE_SHIFT
                    else:
                        shortage += WHOLE_SHORTAGE
            fitting += failing == 0
            if failing < fewest or (failing == fewest and shortage < smallest):
                fewest, smallest, nearest = failing, shortage, h
        return Refusal(
            hosts=hosts,
            disabled=disabled,
            disallowed=disallowed,
            crowded=crowded,
            over_limit=self.over_limit(of, False),
            occupied=occupied,
            ruled_out=ruled_out,
            breaking=tuple(breaking[: view.terms - self.class_exclusive[of]].tolist()),
            considered=hosts - disabled - disallowed - crowded - occupied - ruled_out,
            fitting=fitting,
            lacking=tuple(lacking_array.tolist()),
            best=tuple(best_array.tolist()),
            nearest=None if nearest < 0 else self._nearest(of, nearest),
            could_ever_fit=ever,
        )

    def preemption(self, cls, release_ids, costs=None):
        cdef Use _use = claimed(self)
        cdef int of = self._class(cls)
        numbers, prices = preemptible(release_ids, costs)
        on_slot = {}
        seen = set()
        for i, (number, price) in enumerate(zip(numbers.tolist(), prices.tolist())):
            if number in seen or not self.is_live(number):
                raise MatchError(f"release_ids[{i}] is {number}, {'given twice' if number in seen else 'not live'}")
            seen.add(number)
            on_slot.setdefault(self.claim_slot[number & INDEX_BITS], []).append((-price, number))
        best = None
        self.refresh_balances(of)
        for slot in range(self.hosts_end):
            if self.host_status[slot] != HOST_ENABLED or not self.may_use(of, slot):
                continue
            victims = self._victims(of, slot, sorted(on_slot.get(slot, ())))
            if victims is not None:
                cost = sum(-price for price, _ in victims)
                if best is None or (cost, len(victims), slot) < best[0]:
                    best = (cost, len(victims), slot), victims
        if best is None:
            return None
        return Preemption(
            slot=best[0][2], release_ids=tuple(sorted(number for _, number in best[1])), cost=best[0][0]
        )

    cdef object _victims(self, int cls, int slot, list candidates):
        """The candidates on the slot, sorted (-cost, id), that must be released; None if all of them are not enough."""
        cdef int64_t number
        victims = None
        for _, number in candidates:
            self.suspend(<int32_t>(number & INDEX_BITS))
        if self.can_take(cls, slot):
            victims = []
            for price, number in candidates:
                self.resume(<int32_t>(number & INDEX_BITS))
                if not self.can_take(cls, slot):
                    self.suspend(<int32_t>(number & INDEX_BITS))
                    victims.append((price, number))
        for _, number in candidates if victims is None else victims:
            self.resume(<int32_t>(number & INDEX_BITS))
        if candidates:
            self.touch(slot)
        return victims

    def claims(self, cls=None):
        cdef Use _use = claimed(self)
        cdef int at
        if cls is None:
            return self.claims_live
        at = whole("cls", cls, 0, limits.MAX_CLASSES - 1)
        return self.class_claims[at] if at < self.classes_end and self.class_status[at] != CLASS_ABSENT else 0

    def claims_on(self, slot):
        cdef Use _use = claimed(self)
        return self._claims_on(self._host(slot))

    def memory(self):
        """Bytes by use: hosts, classes (with masks and shared keys), claims, index (the tables)."""
        cdef Use _use = claimed(self)
        parts = {
            "hosts": [
                self.unclaimed, self.total, self.rows, self.planes, self.levels, self.host_status, self.host_claims,
                self.host_open, self.host_count, self.host_exclusive, self.host_size, self.value_of,
                self.changed_at, self.newer, self.older,
            ],
            "classes": [
                self.request, self.first, self.needs, self.class_wide, self.class_status, self.class_key,
                self.class_mask, self.class_claims, self.class_refused, self.class_group, self.class_max_per_host,
                self.shared, self.key_number, self.key_classes,
                self.key_claims, self.group_number, self.group_classes, self.group_limited, self.group_limit,
                self.group_used, self.grouped, self.allowed, self.group_claims, self.group_rule,
                self.group_value_counts, self.class_exclusive, self.class_rule, self.class_penalty, self.penalty,
                self.custom_scores, self.custom_scores_seen,
            ],
            "claims": [self.generation, self.claim_slot, self.claim_class, self.claim_next, self.claim_before],
        }
        sizes = {name: sum(np.asarray(array).nbytes for array in arrays) for name, arrays in parts.items()}
        sizes["classes"] += self.tables_room * sizeof(Table) + self._rule_bytes()
        return sizes | {"index": self.table_bytes}

    # ---- copies and checks

    def snapshot(self):
        cdef Use _use = claimed(self)
        return encode(self._state())

    @classmethod
    def restore(cls, data, *, engine="index", fitness=None):
        state = decode(data)
        return from_state(state, engine, restored_fitness(state, fitness))

    def __copy__(self):
        return self.fork()

    def __deepcopy__(self, memo):
        return self.fork()

    def __reduce__(self):
        return reopened, (Matcher, self.snapshot(), self.engine, self.custom_fitness)

    def fork(self):
        cdef Use _use = claimed(self)
        return from_state(self._state(), self.engine, self.custom_fitness)

    def check(self):
        """Recompute every total from the claims. Raises MatchStateError, which names the first one that differs."""
        cdef Use _use = claimed(self)
        state = self._state()
        cdef Matcher again = from_state(state, "scan", self.custom_fitness)
        cdef int h = self.hosts_end, c = self.classes_end, row, other, slot
        self._update_sizes()
        again._update_sizes()
        if self.weights[0] > 0:
            _same("votes", self.votes, again.votes)
            _same("dimensions that count", self.counted, again.counted)
        _same("free amounts", np.asarray(self.unclaimed)[:h], np.asarray(again.unclaimed)[:h])
        _same("rows", np.asarray(self.rows)[:h], np.asarray(again.rows)[:h])
        _same("claims of a class", np.asarray(self.class_claims)[:c], np.asarray(again.class_claims)[:c])
        if self.claims_live != again.claims_live:
            raise MatchStateError(f"{self.claims_live} claims are counted, {again.claims_live} are listed")
        if set(self.key_rows) != set(again.key_rows):
            raise MatchStateError("the shared keys do not match the classes")
        for number, row in self.key_rows.items():
            other = again.key_rows[number]
            ours, theirs = np.asarray(self.key_claims)[row, :h], np.asarray(again.key_claims)[other, :h]
            _same(f"claims with shared key {number}", ours, theirs)
            if self.key_classes[row] != again.key_classes[other]:
                raise MatchStateError(f"shared key {number} miscounts its classes")
        if set(self.group_rows) != set(again.group_rows):
            raise MatchStateError("the groups do not match the classes")
        for number, row in self.group_rows.items():
            other = again.group_rows[number]
            _same(f"counts of group {number}", np.asarray(self.grouped)[row, :h], np.asarray(again.grouped)[other, :h])
            _same(f"amounts of group {number}", self.group_used[row], again.group_used[other])
            _same(f"limit of group {number}", self.group_limit[row], again.group_limit[other])
            if self.group_claims[row] != again.group_claims[other]:
                raise MatchStateError(f"group {number} miscounts its claims")
            if self._value_counts_of(row) != again._value_counts_of(other):
                raise MatchStateError(f"group {number} has wrong counts by attribute")
            if self.group_classes[row] != again.group_classes[other]:
                raise MatchStateError(f"group {number} miscounts its classes")
        for slot in range(h):
            if not np.array_equal(self._claims_on(slot), again._claims_on(slot)):
                raise MatchStateError(f"the list of claims of slot {slot} is wrong")
        for name in ("open", "claims counted", "exclusive claims"):
            ours, theirs = self._host_counts(name), again._host_counts(name)
            _same(name, ours[:h], theirs[:h])
        self.update_planes()
        _same("planes", np.asarray(self.planes)[:, :h].T, np.asarray(self.rows)[:h, 1 : 1 + PLANES * self.dimensions])
        _same("levels", np.asarray(self.levels)[:h], np.asarray(self.rows)[:h, 0])
        for row in range(c):
            if self.tables[row].lines > 0:
                self._check_table(row)

    cdef int _check_table(self, int cls) except -1:
        """Compute the minima in use, and the scores of hosts unchanged since the last update, and compare."""
        cdef Table* table = &self.tables[cls]
        cdef View view
        cdef int at
        self.refresh_balances(cls)
        self.fill_view(cls, &view)
        for at in range(min(self.hosts_end, table.lines * JOBCLOUD_LINE)):
            if self.changed_at[at] <= table.seen and table.score[at] != jobcloud_score_one(&view, at):
                raise MatchStateError(f"class {cls} has a wrong score for slot {at}")
        if table.flat:
            return 0
        scores = np.asarray(<int32_t[: table.lines * JOBCLOUD_LINE]>table.score).reshape(-1, JOBCLOUD_LINE)
        minima = np.asarray(<int32_t[: table.tops * JOBCLOUD_LINE]>table.line)
        _same(f"minima of class {cls}", minima[: table.lines], scores.min(axis=1))
        tops = minima.reshape(-1, JOBCLOUD_LINE).min(axis=1)
        _same(f"highest minima of class {cls}", np.asarray(<int32_t[: table.tops]>table.top), tops)
        return 0

    # ---- placing

    cdef Py_ssize_t place(
        self, const int64_t[::1] classes, int32_t[::1] slots, int64_t[::1] ids, Py_ssize_t start, int64_t* left
    ) noexcept nogil:
        """Place tasks from ``start`` on until all are tried, the limit is reached or a claim needs more room."""
        cdef Py_ssize_t i
        cdef int cls, slot
        for i in range(start, classes.shape[0]):
            if left[0] == 0 or not self.has_room():
                return i
            cls = <int>classes[i]
            slot = self.find(cls)
            slots[i] = slot
            if slot >= 0:
                ids[i] = self.start_claim(cls, slot)
                left[0] -= 1
        return classes.shape[0]

    cdef Py_ssize_t place_custom(
        self, const int64_t[::1] classes, int32_t[::1] slots, int64_t[::1] ids, Py_ssize_t start, int64_t* left
    ) except -1:
        """Place tasks like ``place``. The custom fitness scores the changed hosts first."""
        cdef Py_ssize_t i
        cdef int cls, slot
        for i in range(start, classes.shape[0]):
            if left[0] == 0 or not self.has_room():
                return i
            cls = <int>classes[i]
            if self.class_refused[cls] != self.capacity_epoch and not self.over_limit(cls, False):
                self._score_custom(cls)
            slot = self.find(cls)
            slots[i] = slot
            if slot >= 0:
                ids[i] = self.start_claim(cls, slot)
                left[0] -= 1
        return classes.shape[0]

    cdef int _score_custom(self, int cls) except -1:
        """Call the custom fitness for each changed host that is enabled and allowed and that the task fits."""
        cdef int host = self.newest
        changed = []
        while host >= 0 and self.changed_at[host] > self.custom_scores_seen[cls]:
            if self.host_status[host] == HOST_ENABLED and self.may_use(cls, host) and self.fits(cls, host):
                changed.append(host)
            host = self.older[host]
        for host in sorted(changed):
            self.fitness_calls += 1
            self.custom_scores[cls, host] = custom_score(
                self.custom_fitness, cls, host, self._needed(cls, host), _amounts_of(self.unclaimed, host),
                _amounts_of(self.total, host)
            )
        self.custom_scores_seen[cls] = self.changed
        return 0

    cdef bint fits(self, int cls, int slot) noexcept nogil:
        cdef const int64_t* need = self.need(cls, slot)
        cdef int d
        for d in range(self.dimensions):
            if need[d] > self.unclaimed[slot, d]:
                return False
        return True

    cdef tuple _needed(self, int cls, int slot):
        cdef const int64_t* need = self.need(cls, slot)
        return tuple([need[d] for d in range(self.dimensions)])

    cdef int find(self, int cls) noexcept nogil:
        """The slot for one task of the class: the lowest slot with the lowest score, or NONE."""
        cdef View view
        cdef int slot
        if self.class_refused[cls] == self.capacity_epoch:
            return NONE
        if self.over_limit(cls, False):
            self.class_refused[cls] = self.capacity_epoch
            return NONE
        self.refresh_balances(cls)
        self.fill_view(cls, &view)
        if self.update_table(cls, &view):
            slot = jobcloud_best(&self.tables[cls])
        else:
            view.with_key_only = view.key_claims != NULL and not self.even_only
            slot = self.scan(&view)
            if slot < 0 and view.with_key_only:
                view.with_key_only = False
                slot = self.scan(&view)
        if slot < 0:
            self.class_refused[cls] = self.capacity_epoch
        return slot

    cdef bint over_limit(self, int cls, bint any_limit) noexcept nogil:
        """Whether one more claim would exceed the limit of the class's group, or any possible limit."""
        cdef int group = self.class_group[cls]
        cdef int d
        cdef int64_t limit
        if group < 0:
            return False
        for d in range(self.dimensions):
            limit = MAX_GROUP_CLAIMED if any_limit else self.group_limit[group, d]
            if self.request[cls, d] > limit - self.group_used[group, d]:
                return True
        return False

    cdef void fill_view(self, int cls, View* view) noexcept nogil:
        cdef int key = self.class_key[cls]
        cdef int mask = self.class_mask[cls]
        view.dimensions = self.dimensions
        view.width = self.width
        view.stride = self.planes.shape[1]
        view.request = <const Need*>&self.needs[cls, 0]
        view.first = <const Need*>&self.needs[cls, 3 * self.dimensions]
        view.exact_request = &self.request[cls, 0]
        view.exact_first = &self.first[cls, 0]
        view.unclaimed = &self.unclaimed[0, 0]
        view.planes = &self.planes[0, 0]
        view.levels = &self.levels[0]
        view.rows = &self.rows[0, 0]
        view.wide = self.class_wide[cls]
        if self.max_exponent > 31:
            view.wide |= jobcloud_is_tiny(view.request, self.max_exponent, self.dimensions)
            view.wide |= jobcloud_is_tiny(view.first, self.max_exponent, self.dimensions)
        view.allowed = &self.allowed[mask, 0] if mask >= 0 else NULL
        view.key_claims = &self.key_claims[key, 0] if key >= 0 else NULL
        view.with_key_only = False
        view.grouped = &self.grouped[self.class_group[cls], 0] if self.class_max_per_host[cls] > 0 else NULL
        view.max_per_host = self.class_max_per_host[cls]
        view.fitness = NULL if self.even_only else &self.weights[0]
        view.penalty = &self.penalty[self.class_penalty[cls], 0] if self.class_penalty[cls] >= 0 else NULL
        view.custom = &self.custom_scores[cls, 0] if self.custom_scores.shape[0] > 0 else NULL
        view.terms = 0
        if self.class_rule[cls] >= 0:
            self.add_rule_terms(cls, view)
        if self.class_exclusive[cls]:
            view.term[view.terms] = Term(&self.host_count[0], NULL, 0, 1, 0, False)
            view.terms += 1

    cdef int scan(self, const View* view) noexcept nogil:
        cdef int32_t scores[JOBCLOUD_BLOCK]
        cdef int32_t here, lowest = JOBCLOUD_INFEASIBLE
        cdef int base = 0, slot = NONE
        self.update_planes()
        while base < self.hosts_end:
            here = jobcloud_score_block(view, base, min(JOBCLOUD_BLOCK, self.hosts_end - base), scores)
            if here < lowest:
                lowest = here
                slot = base + jobcloud_find(scores, here)
            base += JOBCLOUD_BLOCK
        self.evaluations += self.hosts_end
        return slot

    # ---- the index: the scores of each class, updated when the class is asked for

    cdef bint update_table(self, int cls, const View* view) noexcept nogil:
        """Update the table of the class if that is cheaper than a scan. Returns whether it was updated."""
        cdef Table* table = &self.tables[cls]
        cdef int replayed
        cdef int max_hosts = 1 + self.hosts_end // HOSTS_PER_REPLAY
        if not self.eager and (not self.indexed or self.hosts_end < MIN_HOSTS_FOR_TABLE):
            return False
        if table.lines == 0 and not self.worth_a_table(table, max_hosts):
            return False
        if table.wait > 0 and not self.eager:
            table.wait -= 1
            return False
        if table.lines * JOBCLOUD_LINE >= self.hosts_end:
            replayed = jobcloud_replay(table, view, &self.changed_at[0], &self.older[0], self.newest, max_hosts)
            self.evaluations += max(replayed, ~replayed)
            if replayed >= 0:
                table.misses = max(table.misses - 1, 0)
                self.misses = max(self.misses - 1, 0)
                table.seen = self.changed
                return True
            table.misses = min(table.misses + 1, MAX_MISSES)
            self.misses = min(self.misses + 1, MAX_MISSES)
            table.wait = (1 << table.misses) - 2
        elif not self.make_table(table):
            return False
        self.update_planes()
        jobcloud_rebuild(table, view, self.hosts_end)
        self.evaluations += self.hosts_end
        table.seen = self.changed
        return True

    cdef bint worth_a_table(self, Table* table, int max_hosts) noexcept nogil:
        """Whether the class is asked for again so soon that updates of a table are cheaper than scans."""
        cdef uint64_t since = self.changed - table.seen
        if self.eager:
            return self.hosts_end > 0
        table.seen = self.changed
        table.asks = table.asks + 1 if since <= <uint64_t>CHANGES_PER_HOST * max_hosts else max(table.asks - 2, 0)
        return table.asks > self.misses

    cdef bint make_table(self, Table* table) noexcept nogil:
        """Allocate scores for all hosts. Returns False if there is no memory; then the class uses scans."""
        cdef int lines = jobcloud_whole_lines(self.hosts_end)
        cdef int tops = jobcloud_whole_lines(lines)
        self.free_table(table)
        cdef int64_t size = table_size(lines, tops)
        if self.table_bytes + size > MAX_TABLE_BYTES:
            return False
        table.score = <int32_t*>aligned_alloc(JOBCLOUD_LINE * sizeof(int32_t), size)
        if table.score == NULL:
            return False
        self.table_bytes += size
        table.lines = lines
        table.line = table.score + <size_t>lines * JOBCLOUD_LINE
        table.top = table.line + <size_t>tops * JOBCLOUD_LINE
        table.tops = tops
        return True

    cdef void free_table(self, Table* table) noexcept nogil:
        self.table_bytes -= table_size(table.lines, table.tops)
        free(table.score)
        table.score = NULL
        table.lines = table.tops = 0

    cdef void drop_table(self, int cls) noexcept nogil:
        self.free_table(&self.tables[cls])
        memset(&self.tables[cls], 0, sizeof(Table))

    cdef void drop_idle_tables(self) noexcept nogil:
        """Free the tables of classes that were not asked for since many changes ago."""
        cdef int cls
        if self.changed - self.swept < IDLE_CHANGES_PER_HOST * <uint64_t>self.hosts_end + 4096:
            return
        for cls in range(self.classes_end):
            if self.tables[cls].lines > 0 and self.tables[cls].seen <= self.swept:
                self.drop_table(cls)
        self.swept = self.changed

    cdef void update_planes(self) noexcept nogil:
        """Copy the rows of the hosts that changed since the last update to the planes."""
        cdef int host = self.newest
        cdef uint64_t since = self.planes_seen
        while host >= 0 and self.changed_at[host] > since:
            jobcloud_copy_to_planes(
                &self.planes[0, 0], &self.levels[0], self.planes.shape[1], &self.rows[host, 0], host, self.dimensions
            )
            host = self.older[host]
        self.planes_seen = self.changed

    cdef void refresh(self, int slot) noexcept nogil:
        jobcloud_refresh_row(
            &self.rows[slot, 0], &self.unclaimed[slot, 0], &self.total[slot, 0], &self.counted[0],
            self.host_size[slot], self.host_open[slot], self.dimensions
        )

    cdef void touch(self, int slot) noexcept nogil:
        """Move a changed host to the front of the list, which holds each host once."""
        self.refresh(slot)
        self.changed += 1
        if self.newest != slot:
            if self.changed_at[slot] > 0:
                self.older[self.newer[slot]] = self.older[slot]
                if self.older[slot] >= 0:
                    self.newer[self.older[slot]] = self.newer[slot]
            self.older[slot] = self.newest
            self.newer[slot] = NONE
            if self.newest >= 0:
                self.newer[self.newest] = slot
            self.newest = slot
        self.changed_at[slot] = self.changed

    # ---- rules on the claims of a group

    cdef void add_rule_terms(self, int cls, View* view) noexcept nogil:
        cdef int at = self.class_rule[cls]
        while at >= 0:
            view.term[view.terms] = self.term(&self.rules[at])
            view.terms += 1
            at = self.rules[at].next_of_class

    cdef Term term(self, const Rule* rule) noexcept nogil:
        """The bounds of the rule at present."""
        cdef Term term
        term.weight = rule.weight
        term.graded = rule.kind == RULE_BALANCED
        term.low = 0
        term.high = INT32_MAX
        if rule.kind == RULE_NEAR:
            if self.group_claims[rule.group] > 0 or self.class_group[rule.cls] != rule.group:
                term.low = rule.number
        else:
            term.high = <int32_t>min(<int64_t>rule.least + rule.number, INT32_MAX)
        if rule.attribute < 0:
            term.counts, term.value = &self.grouped[rule.group, 0], NULL
        else:
            term.counts, term.value = self.value_counts[rule.value_counts].counts, &self.value_of[rule.attribute, 0]
        return term

    cdef void count_in_group(self, int group, int slot, int by) noexcept nogil:
        """Add or remove a claim in the counts of the group, and update the rules that count the group."""
        cdef int at = self.group_value_counts[group]
        cdef ValueCounts* tally
        cdef int value
        self.grouped[group, slot] += by
        self.group_claims[group] += by
        while at >= 0:
            tally = &self.value_counts[at]
            value = self.value_of[tally.attribute, slot]
            if value >= 0:
                tally.counts[value] += by
            at = tally.next_of_group
        at = self.group_rule[group]
        while at >= 0:
            self.update_rule(&self.rules[at], slot, by)
            at = self.rules[at].next_of_group

    cdef void update_rule(self, Rule* rule, int slot, int by) noexcept nogil:
        """If the new count changes the effect of the rule on some hosts, score these again for the rule's class."""
        cdef int cls = rule.cls
        cdef int value, count, limit
        cdef bint first_or_last = self.group_claims[rule.group] == (1 if by > 0 else 0)
        if rule.kind == RULE_NEAR and first_or_last and self.class_group[cls] == rule.group:
            self.invalidate_table(cls)
            return
        if rule.attribute < 0:
            if rule.kind == RULE_NEAR:
                self.class_refused[cls] = 0
            return  # the host itself is scored again anyway
        value = self.value_of[rule.attribute, slot]
        if value < 0:
            return
        count = self.value_counts[rule.value_counts].counts[value]
        if rule.kind == RULE_BALANCED:
            if rule.layout != self.layout:
                return  # refresh_balances recounts before the class is next asked for
            if self.changes_least(rule, value, count, by):
                self.invalidate_table(cls)
                return
            limit = rule.least + rule.number
            if rule.weight > 0 and max(count, count - by) >= limit:
                self.rescore_value(cls, rule.attribute, value)
                return
        else:
            limit = rule.number
        if (count >= limit) != (count - by >= limit):
            self.rescore_value(cls, rule.attribute, value)

    cdef bint changes_least(self, Rule* rule, int value, int count, int by) noexcept nogil:
        cdef int before = rule.least
        if not rule.eligible[value]:
            return False
        if by < 0:
            rule.least = min(rule.least, count)
        elif count - 1 == rule.least:
            self.find_least(rule)
        return rule.least != before

    cdef void find_least(self, Rule* rule) noexcept nogil:
        cdef const int32_t* counts = self.value_counts[rule.value_counts].counts
        cdef int value
        cdef int32_t least = INT32_MAX
        for value in range(self.attributes[rule.attribute].values):
            if rule.eligible[value] and counts[value] < least:
                least = counts[value]
        rule.least = 0 if least == INT32_MAX else least

    cdef void rescore_value(self, int cls, int attribute, int value) noexcept nogil:
        """Compute the class's scores again for all hosts with this value of the attribute."""
        cdef Table* table = &self.tables[cls]
        cdef Attribute* known = &self.attributes[attribute]
        cdef View view
        cdef int i
        self.class_refused[cls] = 0
        if table.lines == 0:
            return
        if known.starts[value + 1] - known.starts[value] > 1 + self.hosts_end // HOSTS_PER_REPLAY:
            table.seen = 0
            return
        self.fill_view(cls, &view)
        for i in range(known.starts[value], known.starts[value + 1]):
            if known.hosts[i] < table.lines * JOBCLOUD_LINE:
                jobcloud_rescore(table, &view, known.hosts[i])
                self.evaluations += 1

    cdef void invalidate_table(self, int cls) noexcept nogil:
        """Mark the class's scores of all hosts as outdated."""
        self.class_refused[cls] = 0
        if self.tables[cls].lines > 0:
            self.tables[cls].seen = 0

    cdef void refresh_balances(self, int cls) noexcept nogil:
        """Recompute the eligible values of the class's balanced rules if hosts, attributes or its mask changed."""
        cdef int at = self.class_rule[cls]
        cdef Rule* rule
        cdef int host, value
        while at >= 0:
            rule = &self.rules[at]
            at = rule.next_of_class
            if rule.kind != RULE_BALANCED or rule.layout == self.layout:
                continue
            rule.layout = self.layout
            memset(rule.eligible, 0, self.attributes[rule.attribute].values)
            for host in range(self.hosts_end):
                value = self.value_of[rule.attribute, host]
                if value >= 0 and self.host_status[host] == HOST_ENABLED and self.may_use(cls, host):
                    rule.eligible[value] = 1
            self.find_least(rule)
            self.invalidate_table(cls)

    cdef bint may_use(self, int cls, int slot) noexcept nogil:
        return self.class_mask[cls] < 0 or self.allowed[self.class_mask[cls], slot] != 0

    cdef void invalidate_balances(self, int cls) noexcept nogil:
        cdef int at = self.class_rule[cls]
        while at >= 0:
            self.rules[at].layout = 0
            at = self.rules[at].next_of_class

    # ---- claims

    cdef const int64_t* need(self, int cls, int slot) noexcept nogil:
        """The amounts of one task on the host: the request, plus the shared part if no claim there has the key."""
        cdef int key = self.class_key[cls]
        if key >= 0 and self.key_claims[key, slot] == 0:
            return &self.first[cls, 0]
        return &self.request[cls, 0]

    cdef bint has_room(self) noexcept nogil:
        return self.free_claim >= 0 or self.claims_end < self.claim_slot.shape[0]

    cdef int64_t start_claim(self, int cls, int slot) noexcept nogil:
        """Claim without a check of fit; there must be room for one more claim. Returns the release id."""
        cdef int32_t claim = self.free_claim
        self.count(cls, slot, 1)
        self.touch(slot)
        if claim >= 0:
            self.free_claim = self.claim_next[claim]
        else:
            claim = <int32_t>self.claims_end
            self.claims_end += 1
            self.generation[claim] = 1
        self.claim_slot[claim] = slot
        self.claim_class[claim] = cls
        self.link(claim, slot)
        self.class_claims[cls] += 1
        self.claims_live += 1
        return self.release_id(claim)

    cdef inline void count(self, int cls, int slot, int by) noexcept nogil:
        """Count one claim of the class on the host, ``by`` 1 or -1. The caller refreshes the host."""
        cdef int key = self.class_key[cls]
        cdef int group = self.class_group[cls]
        cdef const int64_t* need
        cdef int d
        if key >= 0 and by < 0:
            self.key_claims[key, slot] -= 1
        need = self.need(cls, slot)
        for d in range(self.dimensions):
            self.unclaimed[slot, d] -= by * need[d]
        if key >= 0 and by > 0:
            self.key_claims[key, slot] += 1
        self.host_count[slot] += by
        if self.class_exclusive[cls]:
            self.host_exclusive[slot] += by
            self.host_open[slot] = self.host_status[slot] == HOST_ENABLED and self.host_exclusive[slot] == 0
        if group >= 0:
            self.count_in_group(group, slot, by)
            for d in range(self.dimensions):
                self.group_used[group, d] += by * self.request[cls, d]

    cdef void suspend(self, int32_t claim) noexcept nogil:
        """Exclude a live claim from all counts until ``resume``. The caller touches the host at the end."""
        self.count(self.claim_class[claim], self.claim_slot[claim], -1)
        self.refresh(self.claim_slot[claim])

    cdef void resume(self, int32_t claim) noexcept nogil:
        self.count(self.claim_class[claim], self.claim_slot[claim], 1)
        self.refresh(self.claim_slot[claim])

    cdef bint can_take(self, int cls, int slot) noexcept nogil:
        """Whether the host could take a task of the class now."""
        cdef View view
        self.fill_view(cls, &view)
        return not self.over_limit(cls, False) and jobcloud_score_one(&view, slot) != JOBCLOUD_INFEASIBLE

    cdef void end_claim(self, int32_t claim) noexcept nogil:
        """End a live claim; its id never becomes live again."""
        self.give_back(claim)
        self.generation[claim] += 1
        if self.generation[claim] <= MAX_GENERATION:  # otherwise the index is retired
            self.claim_next[claim] = self.free_claim
            self.free_claim = claim

    cdef void rollback_claim(self, int32_t claim, int64_t first_new) noexcept nogil:
        """Roll back the latest start_claim, its id included. Indices from ``first_new`` on were new."""
        self.give_back(claim)
        if claim >= first_new:
            self.claims_end -= 1
        else:
            self.claim_next[claim] = self.free_claim
            self.free_claim = claim

    cdef void give_back(self, int32_t claim) noexcept nogil:
        cdef int slot = self.claim_slot[claim]
        cdef int cls = self.claim_class[claim]
        self.count(cls, slot, -1)
        self.touch(slot)
        self.unlink(claim, slot)
        self.claim_slot[claim] = self.claim_class[claim] = NONE
        self.class_claims[cls] -= 1
        self.emptied += self.class_claims[cls] == 0 and self.class_status[cls] == CLASS_REMOVED
        self.claims_live -= 1
        self.capacity_epoch += 1

    cdef void link(self, int32_t claim, int slot) noexcept nogil:
        cdef int32_t head = self.host_claims[slot]
        self.claim_next[claim] = head
        self.claim_before[claim] = NONE
        if head >= 0:
            self.claim_before[head] = claim
        self.host_claims[slot] = claim

    cdef void unlink(self, int32_t claim, int slot) noexcept nogil:
        cdef int32_t after = self.claim_next[claim]
        cdef int32_t before = self.claim_before[claim]
        if after >= 0:
            self.claim_before[after] = before
        if before >= 0:
            self.claim_next[before] = after
        else:
            self.host_claims[slot] = after

    cdef int64_t release_id(self, int32_t claim) noexcept nogil:
        return (<int64_t>self.generation[claim] << 32) | claim

    cdef bint is_live(self, int64_t number) noexcept nogil:
        cdef int64_t claim = number & INDEX_BITS
        return (
            number > 0
            and claim < self.claims_end
            and self.claim_slot[claim] >= 0
            and <int64_t>self.generation[claim] == number >> 32
        )

    cdef bint could_hold(self, int cls, int slot) noexcept nogil:
        cdef int d
        cdef int at = self.class_rule[cls]
        for d in range(self.dimensions):
            if self.total[slot, d] < self.first[cls, d]:
                return False
        while at >= 0:
            if self.rules[at].weight == 0 and self.rules[at].attribute >= 0:
                if self.value_of[self.rules[at].attribute, slot] < 0:
                    return False
            at = self.rules[at].next_of_class
        return True

    # ---- with the GIL: checks, room, tables

    cdef int _host(self, slot) except -1:
        cdef int at = whole("slot", slot, 0, limits.MAX_SLOTS - 1)
        if at >= self.hosts_end or self.host_status[at] == HOST_ABSENT:
            raise MatchError(f"slot {at} holds no host; add_host says which slot a host got")
        return at

    cdef int _class(self, cls) except -1:
        cdef int at = whole("cls", cls, 0, limits.MAX_CLASSES - 1)
        if at >= self.classes_end or self.class_status[at] != CLASS_USABLE:
            raise MatchError(f"class {at} is unknown or removed; add_class says which number a class got")
        return at

    cdef int _check_classes(self, const int64_t[::1] classes) except -1:
        cdef Py_ssize_t i
        cdef int64_t cls
        for i in range(classes.shape[0]):
            cls = classes[i]
            if cls < 0 or cls >= self.classes_end or self.class_status[cls] != CLASS_USABLE:
                raise MatchError(
                    f"classes[{i}] is {cls}, an unknown or removed class; use the numbers add_class returned"
                )
        return 0

    cdef int _check_key(self, number, shared) except -1:
        row = self.key_rows.get(number)
        if row is not None and not np.array_equal(np.asarray(self.shared)[row], shared):
            raise MatchError(
                f"shared_key {number} already has the shared amounts {np.asarray(self.shared)[row].tolist()}, not "
                f"{shared.tolist()}; use another key for other amounts"
            )
        return 0

    cdef object _checked_mask(self, allowed):
        mask = allowed_slots(allowed)
        check_present("allowed", mask, self._present())
        return mask[: self.hosts_end]

    cdef object _checked_penalty(self, penalty):
        costs = slot_penalties(penalty)
        check_present("penalty", costs, self._present())
        return costs[: self.hosts_end]

    cdef object _present(self):
        return np.asarray(self.host_status)[: self.hosts_end] != HOST_ABSENT

    cdef int _set_status(self, int slot, int status) except -1:
        self.host_status[slot] = status
        self.host_open[slot] = status == HOST_ENABLED and self.host_exclusive[slot] == 0
        self.layout += 1
        return 0

    cdef int _set_capacity(self, int slot, const int64_t[::1] amount) except -1:
        cdef int d
        for d in range(self.dimensions):
            self.count_capacity(d, self.total[slot, d], -1)
            self.count_capacity(d, amount[d], 1)
            self.unclaimed[slot, d] += amount[d] - self.total[slot, d]
            self.total[slot, d] = amount[d]
            self.rows[slot, 1 + PLANES * d + SCALE] = <int32_t>jobcloud_scale(amount[d])
            self.max_exponent = max(self.max_exponent, self.rows[slot, 1 + PLANES * d + SCALE] & 255)
        self.host_size[slot] = self.size_of(slot)
        self.touch(slot)
        self.capacity_epoch += 1
        return 0

    cdef void count_capacity(self, int d, int64_t amount, int by) noexcept nogil:
        if amount > 0:
            self.hosts_with[d] += by
            self.below_median[d] += by * (amount < self.median[d])
            self.below_next[d] += by * (amount < self.next_median[d])

    cdef int32_t size_of(self, int slot) noexcept nogil:
        return jobcloud_size(&self.total[slot, 0], &self.median[0], &self.counted[0], self.dimensions)

    cdef void vote(self, int cls, int by) noexcept nogil:
        jobcloud_vote(&self.votes[0], &self.first[cls, 0], &self.median[0], self.dimensions, by)
        self.voted = True

    cdef int _update_sizes(self) except -1:
        """Recompute the medians, the dimensions that count, and the sizes of hosts. Called before hosts are scored."""
        cdef int slot, cls
        cdef int32_t size
        cdef bint moved, recounted
        if self.weights[0] == 0:
            return 0
        moved = self._update_medians()
        if moved:
            self.votes[:] = 0
            for cls in range(self.classes_end):
                if self.class_status[cls] != CLASS_ABSENT:
                    self.vote(cls, 1)
        recounted = self.voted and jobcloud_count_dimensions(&self.counted[0], &self.votes[0], self.dimensions)
        self.voted = False
        if moved or recounted:
            for slot in range(self.hosts_end):
                size = self.size_of(slot)
                if recounted or size != self.host_size[slot]:
                    self.host_size[slot] = size
                    self.touch(slot)
        return 0

    cdef bint _update_medians(self) except -1:
        """Recompute the medians that changed. Returns whether one did."""
        cdef int d, slot, n, low
        cdef int64_t middle, median
        cdef int64_t* capacity = NULL
        cdef bint moved = False
        for d in range(self.dimensions):
            middle = self.hosts_with[d] // 2
            if self.hosts_with[d] == 0:
                moved = moved or self.median[d] > 0
                self.median[d] = self.next_median[d] = 0
                continue
            if self.below_median[d] <= middle < self.below_next[d]:
                continue
            if capacity == NULL:
                capacity = <int64_t*>malloc(self.hosts_end * sizeof(int64_t))
                if capacity == NULL:
                    raise MemoryError(f"no memory for the capacities of {self.hosts_end} hosts")
            n = 0
            for slot in range(self.hosts_end):
                capacity[n] = self.total[slot, d]
                n += capacity[n] > 0
            median = jobcloud_in_order(capacity, n, <int>middle)
            low = max(jobcloud_bits(median) - 6, 0)
            self.median[d] = median >> low << low
            self.next_median[d] = self.median[d] + (<int64_t>1 << low)
            self.below_median[d] = self.below_next[d] = 0
            for slot in range(n):
                self.below_median[d] += capacity[slot] < self.median[d]
                self.below_next[d] += capacity[slot] < self.next_median[d]
            moved = True
        free(capacity)
        return moved

    cdef int _room_for_hosts(self, Py_ssize_t count) except -1:
        cdef Py_ssize_t old = self.host_status.shape[0]
        if count <= old:
            return 0
        # An odd number of blocks: with a power of two, all dimensions of a host would map to the same cache set.
        count = ((max(count, 2 * old) - 1) // JOBCLOUD_BLOCK + 1 | 1) * JOBCLOUD_BLOCK
        self.changed_at = grown(self.changed_at, count, 0)
        self.newer = grown(self.newer, count, 0)
        self.older = grown(self.older, count, 0)
        self.rows = grown(self.rows, count, 0)
        self.unclaimed = grown(self.unclaimed, count, 0)
        self.total = grown(self.total, count, 0)
        self.planes = grown(self.planes, count, 1)
        levels = grown(self.levels, count, 0)
        levels[old:] = NONE
        self.levels = levels
        self.key_claims = grown(self.key_claims, count, 1)
        self.grouped = grown(self.grouped, count, 1)
        self.allowed = grown(self.allowed, count, 1)
        self.penalty = grown(self.penalty, count, 1)
        self.custom_scores = grown(self.custom_scores, count, 1)
        self.host_open = grown(self.host_open, count, 0)
        self.host_count = grown(self.host_count, count, 0)
        self.host_exclusive = grown(self.host_exclusive, count, 0)
        self.host_size = grown(self.host_size, count, 0)
        values = grown(self.value_of, count, 1)
        values[:, old:] = NONE
        self.value_of = values
        claims = grown(self.host_claims, count, 0)
        claims[old:] = NONE
        self.host_claims = claims
        self.host_status = grown(self.host_status, count, 0)  # last, because its length is the room
        return 0

    cdef int grow_tables(self, Py_ssize_t count) except -1:
        cdef void* larger = realloc(self.tables, count * sizeof(Table))
        if larger == NULL:
            raise MemoryError(f"no memory for {count} classes")
        self.tables = <Table*>larger
        memset(&self.tables[self.tables_room], 0, (count - self.tables_room) * sizeof(Table))
        self.tables_room = count
        return 0

    cdef int _lowest_free_class(self) except -1:
        cdef int cls = self.classes_hint
        while cls < self.classes_end and self.class_status[cls] != CLASS_ABSENT:
            cls += 1
        self.classes_hint = cls
        if cls >= limits.MAX_CLASSES:
            raise MatchError(f"a matcher holds at most {limits.MAX_CLASSES} classes; remove some first")
        return cls

    cdef int _put_class(
        self, int cls, int status, const int64_t[::1] request, number, shared, mask, group, rules, exclusive, penalty
    ) except -1:
        """Write a class into a free row. The caller has checked the arguments."""
        cdef int d
        self._room_for_classes(cls + 1)
        cdef int key = self._take_key(number, shared)
        cdef int row = NONE if mask is None else self._take_mask()
        for d in range(self.dimensions):
            self.request[cls, d] = self.first[cls, d] = request[d]
            if key >= 0:
                self.first[cls, d] += self.shared[key, d]
        jobcloud_set_need(<Need*>&self.needs[cls, 0], &self.request[cls, 0], self.dimensions)
        jobcloud_set_need(<Need*>&self.needs[cls, 3 * self.dimensions], &self.first[cls, 0], self.dimensions)
        self.class_wide[cls] = 0
        for d in range(self.dimensions):
            self.class_wide[cls] |= self.first[cls, d] > INT32_MAX
        self.class_status[cls] = status
        self.vote(cls, 1)
        self.class_key[cls] = key
        self.class_group[cls] = self._take_group(group[0])
        self.class_max_per_host[cls] = group[1]
        self.class_mask[cls] = row
        self.class_claims[cls] = 0
        self.class_refused[cls] = 0
        self.class_exclusive[cls] = exclusive
        self.custom_scores_seen[cls] = 0
        self.class_rule[cls] = self.class_penalty[cls] = NONE
        for rule in reversed(rules):
            self._put_rule(cls, rule)
        self._put_penalty(cls, penalty)
        self.classes_end = max(self.classes_end, cls + 1)
        if mask is not None:
            self._write_mask(row, mask)
        return 0

    cdef int _room_for_classes(self, Py_ssize_t count) except -1:
        cdef Py_ssize_t old = self.class_status.shape[0]
        if count <= old:
            return 0
        count = max(count, 2 * old)
        self.grow_tables(count)
        self.request = grown(self.request, count, 0)
        self.first = grown(self.first, count, 0)
        self.needs = grown(self.needs, count, 0)
        self.class_wide = grown(self.class_wide, count, 0)
        self.class_key = grown(self.class_key, count, 0)
        self.class_mask = grown(self.class_mask, count, 0)
        self.class_group = grown(self.class_group, count, 0)
        self.class_max_per_host = grown(self.class_max_per_host, count, 0)
        self.class_exclusive = grown(self.class_exclusive, count, 0)
        self.custom_scores_seen = grown(self.custom_scores_seen, count, 0)
        if self.custom_fitness is not None:
            self.custom_scores = grown(self.custom_scores, count, 0)
        self.class_rule = grown(self.class_rule, count, 0)
        self.class_penalty = grown(self.class_penalty, count, 0)
        self.class_claims = grown(self.class_claims, count, 0)
        self.class_refused = grown(self.class_refused, count, 0)
        self.class_status = grown(self.class_status, count, 0)
        return 0

    cdef int _take_key(self, number, shared) except -2:
        cdef int row
        if number < 0:
            return NONE
        if number in self.key_rows:
            row = self.key_rows[number]
        else:
            row = self._free_key_row()
            np.asarray(self.shared)[row] = shared
            self.key_number[row] = number
            self.key_rows[number] = row
        self.key_classes[row] += 1
        return row

    cdef int _free_key_row(self) except -1:
        cdef int row
        for row in range(self.keys_hint, self.key_classes.shape[0]):
            if self.key_classes[row] == 0:
                self.keys_hint = row
                return row
        row = self.keys_hint = <int>self.key_classes.shape[0]
        self.shared = grown(self.shared, 2 * row, 0)
        self.key_number = grown(self.key_number, 2 * row, 0)
        self.key_claims = grown(self.key_claims, 2 * row, 0)
        self.key_classes = grown(self.key_classes, 2 * row, 0)
        return row

    cdef int _take_group(self, number) except -2:
        cdef int row = 0
        if number < 0:
            return NONE
        if number in self.group_rows:
            row = self.group_rows[number]
        else:
            while row < self.group_classes.shape[0] and self.group_classes[row] > 0:
                row += 1
            if row == self.group_classes.shape[0]:
                self.group_number = grown(self.group_number, 2 * row, 0)
                self.grouped = grown(self.grouped, 2 * row, 0)
                self.group_limited = grown(self.group_limited, 2 * row, 0)
                self.group_limit = grown(self.group_limit, 2 * row, 0)
                self.group_used = grown(self.group_used, 2 * row, 0)
                self.group_claims = grown(self.group_claims, 2 * row, 0)
                self.group_rule = grown(self.group_rule, 2 * row, 0)
                self.group_value_counts = grown(self.group_value_counts, 2 * row, 0)
                self.group_classes = grown(self.group_classes, 2 * row, 0)
            np.asarray(self.group_limit)[row] = MAX_GROUP_CLAIMED
            self.group_number[row] = number
            self.group_rule[row] = self.group_value_counts[row] = NONE
            self.group_rows[number] = row
        self.group_classes[row] += 1
        return row

    cdef int _leave_group(self, int row) except -1:
        self.group_classes[row] -= 1
        if self.group_classes[row] == 0:
            del self.group_rows[self.group_number[row]]
        return 0

    cdef int _put_rule(self, int cls, given) except -1:
        """Add a rule at the front of its class's list."""
        cdef int at = self._free_rule()
        cdef Rule* rule = &self.rules[at]
        rule.cls = cls
        rule.kind = limits.RULES.index(given.kind)
        rule.attribute = given.attribute
        rule.number = given.number
        rule.weight = given.weight
        rule.least = 0
        rule.layout = 0
        rule.group = self._take_group(given.group)
        rule.value_counts = NONE if rule.attribute < 0 else self._take_value_counts(rule.group, rule.attribute)
        rule.next_of_class = self.class_rule[cls]
        rule.next_of_group = self.group_rule[rule.group]
        self.class_rule[cls] = self.group_rule[rule.group] = at
        if rule.kind == RULE_BALANCED:
            self._room_for_eligible(rule)
        return 0

    cdef int _room_for_eligible(self, Rule* rule) except -1:
        cdef int values = self.attributes[rule.attribute].values
        free(rule.eligible)
        rule.eligible = <uint8_t*>calloc(max(values, 1), 1)
        if rule.eligible == NULL:
            raise MemoryError(f"no memory for {values} values of an attribute")
        return 0

    cdef int _free_rule(self) except -1:
        cdef int at, room = self.rules_room
        cdef void* larger
        if self.free_rule < 0:
            larger = realloc(self.rules, 2 * (room + 4) * sizeof(Rule))
            if larger == NULL:
                raise MemoryError(f"no memory for {2 * (room + 4)} rules")
            self.rules = <Rule*>larger
            self.rules_room = 2 * (room + 4)
            memset(&self.rules[room], 0, (self.rules_room - room) * sizeof(Rule))
            for at in range(self.rules_room - 1, room - 1, -1):
                self.rules[at].next_of_class = self.free_rule
                self.free_rule = at
        at = self.free_rule
        self.free_rule = self.rules[at].next_of_class
        return at

    cdef int _drop_rules(self, int cls) except -1:
        cdef int at = self.class_rule[cls], after, group
        cdef int32_t* link
        while at >= 0:
            after = self.rules[at].next_of_class
            group = self.rules[at].group
            link = &self.group_rule[group]
            while link[0] != at:
                link = &self.rules[link[0]].next_of_group
            link[0] = self.rules[at].next_of_group
            if self.rules[at].value_counts >= 0:
                self._leave_value_counts(self.rules[at].value_counts)
            self._leave_group(group)
            free(self.rules[at].eligible)
            memset(&self.rules[at], 0, sizeof(Rule))
            self.rules[at].next_of_class = self.free_rule
            self.free_rule = at
            at = after
        self.class_rule[cls] = NONE
        return 0

    cdef int _take_value_counts(self, int group, int attribute) except -1:
        """The index of the group's counts by the values of the attribute, made if necessary."""
        cdef int at = self.group_value_counts[group]
        cdef void* larger
        while at >= 0 and self.value_counts[at].attribute != attribute:
            at = self.value_counts[at].next_of_group
        if at < 0:
            at = 0
            while at < self.value_counts_room and self.value_counts[at].users > 0:
                at += 1
            if at == self.value_counts_room:
                larger = realloc(self.value_counts, 2 * (at + 2) * sizeof(ValueCounts))
                if larger == NULL:
                    raise MemoryError(f"no memory for {2 * (at + 2)} counts by attribute")
                self.value_counts = <ValueCounts*>larger
                self.value_counts_room = 2 * (at + 2)
                memset(&self.value_counts[at], 0, (self.value_counts_room - at) * sizeof(ValueCounts))
            self.value_counts[at].group = group
            self.value_counts[at].attribute = attribute
            self._room_for_values(attribute)
            self._recount_values(&self.value_counts[at])
            self.value_counts[at].next_of_group = self.group_value_counts[group]
            self.group_value_counts[group] = at
        self.value_counts[at].users += 1
        return at

    cdef int _leave_value_counts(self, int at) except -1:
        cdef int32_t* link = &self.group_value_counts[self.value_counts[at].group]
        self.value_counts[at].users -= 1
        if self.value_counts[at].users == 0:
            while link[0] != at:
                link = &self.value_counts[link[0]].next_of_group
            link[0] = self.value_counts[at].next_of_group
            free(self.value_counts[at].counts)
            self.value_counts[at].counts = NULL
        return 0

    cdef int _recount_values(self, ValueCounts* tally) except -1:
        """Recompute the group's counts by value from its counts by host."""
        cdef int values = self.attributes[tally.attribute].values
        cdef int host, value
        free(tally.counts)
        tally.counts = <int32_t*>calloc(max(values, 1), sizeof(int32_t))
        if tally.counts == NULL:
            raise MemoryError(f"no memory for {values} values of an attribute")
        for host in range(self.hosts_end):
            value = self.value_of[tally.attribute, host]
            if value >= 0:
                tally.counts[value] += self.grouped[tally.group, host]
        return 0

    cdef int _room_for_values(self, int attribute) except -1:
        cdef Py_ssize_t old = self.value_of.shape[0]
        if attribute >= old:
            values = grown(self.value_of, attribute + 1, 0)
            values[old:] = NONE
            self.value_of = values
        if self.attributes[attribute].starts == NULL:
            self.attributes[attribute].starts = <int32_t*>calloc(1, sizeof(int32_t))
        return 0

    cdef int _write_attribute(self, int number, of_slot, known) except -1:
        """Set the value of each slot; recompute all counts and scores that depend on the attribute."""
        cdef Attribute* attribute = &self.attributes[number]
        cdef Py_ssize_t values = int(of_slot.max()) + 1 if len(of_slot) else 0
        cdef int at
        with_value = np.flatnonzero(of_slot >= 0).astype(np.int32)
        cdef const int32_t[::1] hosts = np.ascontiguousarray(with_value[np.argsort(of_slot[with_value], kind="stable")])
        cdef const int64_t[::1] counts = np.bincount(of_slot[with_value], minlength=values).astype(np.int64)
        cdef void* starts = calloc(values + 1, sizeof(int32_t))
        cdef void* listed = malloc((hosts.shape[0] + 1) * sizeof(int32_t))
        if starts == NULL or listed == NULL:
            free(starts)
            free(listed)
            raise MemoryError(f"no memory for {values} values of an attribute")
        self._room_for_values(number)
        free(attribute.starts)
        free(attribute.hosts)
        attribute.starts, attribute.hosts = <int32_t*>starts, <int32_t*>listed
        attribute.known, attribute.values = known, <int32_t>values
        for at in range(values):
            attribute.starts[at + 1] = attribute.starts[at] + <int32_t>counts[at]
        for at in range(hosts.shape[0]):
            attribute.hosts[at] = hosts[at]
        table = np.asarray(self.value_of)
        table[number] = NONE
        table[number, : len(of_slot)] = of_slot
        for at in range(self.value_counts_room):
            if self.value_counts[at].users > 0 and self.value_counts[at].attribute == number:
                self._recount_values(&self.value_counts[at])
        for at in range(self.rules_room):
            if self.rules[at].number > 0 and self.rules[at].attribute == number:
                if self.rules[at].kind == RULE_BALANCED:
                    self._room_for_eligible(&self.rules[at])
                self.drop_table(self.rules[at].cls)
        self.layout += 1
        self.capacity_epoch += 1
        return 0

    cdef int _put_penalty(self, int cls, penalty) except -1:
        cdef int row = self.class_penalty[cls]
        if penalty is None:
            if row >= 0:
                self.penalty_used[row] = 0
                self.penalties_hint = min(self.penalties_hint, row)
                self.class_penalty[cls] = NONE
            return 0
        if row < 0:
            row = self.penalties_hint
            while row < self.penalty_used.shape[0] and self.penalty_used[row]:
                row += 1
            self.penalties_hint = row
            if row == self.penalty_used.shape[0]:
                self.penalty = grown(self.penalty, 2 * row, 0)
                self.penalty_used = grown(self.penalty_used, 2 * row, 0)
            self.penalty_used[row] = 1
            self.class_penalty[cls] = row
        table = np.asarray(self.penalty)
        table[row] = 0
        table[row, : len(penalty)] = penalty
        return 0

    cdef object _class_rules(self, int cls):
        """The rules of a class as rows of the snapshot."""
        cdef int at = self.class_rule[cls]
        found = []
        while at >= 0:
            rule = self.rules[at]
            number = self.group_number[rule.group]
            found.append((cls, rule.kind, number, rule.attribute, rule.number, rule.weight))
            at = rule.next_of_class
        return found

    cdef object _value_counts_of(self, int group):
        """The non-zero counts of a group by (attribute, value)."""
        cdef int at = self.group_value_counts[group], value
        found = {}
        while at >= 0:
            for value in range(self.attributes[self.value_counts[at].attribute].values):
                if self.value_counts[at].counts[value] != 0:
                    found[self.value_counts[at].attribute, value] = self.value_counts[at].counts[value]
            at = self.value_counts[at].next_of_group
        return found

    cdef object _host_counts(self, name):
        tables = {"open": self.host_open, "claims counted": self.host_count, "exclusive claims": self.host_exclusive}
        return np.asarray(tables[name])

    cdef object _rule_bytes(self):
        size = self.rules_room * sizeof(Rule) + self.value_counts_room * sizeof(ValueCounts)
        cdef int at
        for at in range(self.value_counts_room):
            if self.value_counts[at].users > 0:
                size += self.attributes[self.value_counts[at].attribute].values * sizeof(int32_t)
        for at in range(self.rules_room):
            if self.rules[at].eligible != NULL:
                size += self.attributes[self.rules[at].attribute].values
        for at in range(limits.MAX_ATTRIBUTES):
            if self.attributes[at].known:
                size += (self.attributes[at].values + self.hosts_end) * sizeof(int32_t)
        return size

    cdef int _take_mask(self) except -1:
        cdef int row = self.masks_hint
        while row < self.mask_used.shape[0] and self.mask_used[row]:
            row += 1
        self.masks_hint = row
        if row == self.mask_used.shape[0]:
            self.allowed = grown(self.allowed, 2 * row, 0)
            self.mask_used = grown(self.mask_used, 2 * row, 0)
        self.mask_used[row] = 1
        return row

    cdef void leave_mask(self, int cls) noexcept nogil:
        cdef int row = self.class_mask[cls]
        if row >= 0:
            self.mask_used[row] = 0
            self.masks_hint = min(self.masks_hint, row)
            self.class_mask[cls] = NONE

    cdef int _write_mask(self, int row, mask) except -1:
        table = np.asarray(self.allowed)
        table[row] = 0
        table[row, : len(mask)] = mask
        return 0

    cdef int _drop_class(self, int cls) except -1:
        cdef int key = self.class_key[cls]
        if key >= 0:
            self.key_classes[key] -= 1
            if self.key_classes[key] == 0:
                self.keys_hint = min(self.keys_hint, key)
                del self.key_rows[self.key_number[key]]
        if self.class_group[cls] >= 0:
            self._leave_group(self.class_group[cls])
        self.leave_mask(cls)
        self._drop_rules(cls)
        self._put_penalty(cls, None)
        self.class_exclusive[cls] = 0
        self.class_status[cls] = CLASS_ABSENT
        self.classes_hint = min(self.classes_hint, cls)
        self.vote(cls, -1)
        self.drop_table(cls)
        while self.classes_end > 0 and self.class_status[self.classes_end - 1] == CLASS_ABSENT:
            self.classes_end -= 1
        return 0

    cdef int _drop_emptied(self) except -1:
        cdef int cls
        if self.emptied == 0:
            return 0
        self.emptied = 0
        for cls in range(self.classes_end - 1, -1, -1):
            if self.class_status[cls] == CLASS_REMOVED and self.class_claims[cls] == 0:
                self._drop_class(cls)
        return 0

    cdef int _room_for_claim(self) except -1:
        if self.has_room():
            return 0
        if self.claims_end >= MAX_CLAIMS:
            raise MemoryError(f"a matcher holds at most {MAX_CLAIMS} claims")
        return self._room_for_claims(self.claims_end + 1)

    cdef int _room_for_claims(self, int64_t count) except -1:
        cdef int64_t old = self.claim_slot.shape[0]
        if count <= old:
            return 0
        room = min(max(count, 2 * old), MAX_CLAIMS)
        self.generation = grown(self.generation, room, 0)
        self.claim_class = grown(self.claim_class, room, 0)
        self.claim_next = grown(self.claim_next, room, 0)
        self.claim_before = grown(self.claim_before, room, 0)
        self.claim_slot = grown(self.claim_slot, room, 0)
        return 0

    cdef int _rollback(self, ids, int64_t first_new) except -1:
        for number in reversed(ids[ids >= 0].tolist()):
            self.rollback_claim(<int32_t>(<int64_t>number & INDEX_BITS), first_new)
        return 0

    cdef object _claims_on(self, int slot):
        """The release ids of the live claims on a slot, ascending."""
        cdef int32_t claim = self.host_claims[slot]
        ids = []
        while claim >= 0:
            ids.append(self.release_id(claim))
            claim = self.claim_next[claim]
        return np.array(sorted(ids), dtype=np.int64)

    cdef object _nearest(self, int cls, int slot):
        cdef int key = self.class_key[cls]
        cdef bint pays = key >= 0 and self.key_claims[key, slot] == 0
        available = np.asarray(self.unclaimed)[slot].clip(0)
        return Nearest(slot=slot, asked=self._needed(cls, slot), available=tuple(available.tolist()), pays_shared=pays)

    cdef object _state(self):
        h, c, n = self.hosts_end, self.classes_end, self.claims_end
        status = np.asarray(self.class_status)[:c].astype(np.int64)
        known = status != CLASS_ABSENT
        keys = np.where(known, np.asarray(self.class_key)[:c], NONE)
        masks = np.where(known, np.asarray(self.class_mask)[:c], NONE)
        groups = np.where(known, np.asarray(self.class_group)[:c], NONE)
        request = np.where(known[:, None], np.asarray(self.request)[:c], 0)
        shared = np.where((keys >= 0)[:, None], np.asarray(self.shared)[keys], 0)
        costs = np.where(known, np.asarray(self.class_penalty)[:c], NONE)
        bound = [row for cls in np.flatnonzero(known).tolist() for row in self._class_rules(cls)]
        named = [number for number in range(limits.MAX_ATTRIBUTES) if self.attributes[number].known]
        limited = sorted(number for number, row in self.group_rows.items() if self.group_limited[row])
        return State(
            dimensions=self.dimensions,
            fitness=np.array(self.weights),
            custom_fitness=np.array([self.custom_fitness is not None], dtype=np.int64),
            host_status=np.asarray(self.host_status)[:h].astype(np.int64),
            host_capacity=np.asarray(self.total)[:h].copy(),
            class_status=status,
            class_key=np.where(keys >= 0, np.asarray(self.key_number)[keys], NONE),
            class_group=np.where(groups >= 0, np.asarray(self.group_number)[groups], NONE),
            class_max_per_host=np.where(known, np.asarray(self.class_max_per_host)[:c], 0).astype(np.int64),
            class_masked=(masks >= 0).astype(np.int64),
            class_request=request,
            class_shared=shared,
            class_allowed=np.asarray(self.allowed)[masks[masks >= 0], :h],
            class_exclusive=np.asarray(self.class_exclusive)[:c].astype(np.int64),
            class_penalised=(costs >= 0).astype(np.int64),
            class_penalty=np.asarray(self.penalty)[costs[costs >= 0], :h].astype(np.int64),
            class_rules=np.array(bound, dtype=np.int64).reshape(-1, 6),
            attribute=np.array(named, dtype=np.int64),
            attribute_value=np.asarray(self.value_of)[named, :h].astype(np.int64),
            claim_generation=np.asarray(self.generation)[:n].astype(np.int64),
            claim_class=np.asarray(self.claim_class)[:n].astype(np.int64),
            claim_slot=np.asarray(self.claim_slot)[:n].astype(np.int64),
            free_claims=self._free_stack(),
            limited_group=np.array(limited, dtype=np.int64),
            group_limit=np.asarray(self.group_limit)[[self.group_rows[number] for number in limited]],
        )

    cdef object _free_stack(self):
        cdef int32_t claim = self.free_claim
        stack = []
        while claim >= 0:
            stack.append(claim)
            claim = self.claim_next[claim]
        return np.array(stack[::-1], dtype=np.int64)


cdef Matcher from_state(state, engine, custom_fitness):
    """A matcher in exactly this state. The free amounts follow from the claims."""
    names = limits.fitness_names(state.dimensions)
    fitness = dict(zip(names, state.fitness.tolist())) if custom_fitness is None else custom_fitness
    cdef Matcher new = Matcher(state.dimensions, engine=engine, fitness=fitness)
    cdef int slot, cls
    masks = iter(state.class_allowed)
    new._room_for_hosts(len(state.host_status))
    for slot in range(len(state.host_status)):
        new._set_status(slot, state.host_status[slot])
        new._set_capacity(slot, state.host_capacity[slot])
    new.hosts_end = len(state.host_status)
    for number, values in zip(state.attribute.tolist(), state.attribute_value):
        new._write_attribute(number, values.astype(np.int32), True)
    rules = {}
    for row in state.class_rules.tolist():
        rules.setdefault(row[0], []).append(limits.Rule(limits.RULES[row[1]], *row[2:]))
    penalties = iter(state.class_penalty)
    for cls in range(len(state.class_status)):
        if state.class_status[cls] != CLASS_ABSENT:
            mask = next(masks) if state.class_masked[cls] else None
            penalty = next(penalties) if state.class_penalised[cls] else None
            key = int(state.class_key[cls])
            new._put_class(
                cls, state.class_status[cls], state.class_request[cls], key, state.class_shared[cls], mask,
                (int(state.class_group[cls]), int(state.class_max_per_host[cls])), rules.get(cls, ()),
                state.class_exclusive[cls], penalty,
            )
    for number, limit in zip(state.limited_group.tolist(), state.group_limit):
        new.set_group_limit(number, limit)
    new._room_for_claims(len(state.claim_slot))
    restore_claims(new, state.claim_generation, state.claim_class, state.claim_slot, state.free_claims)
    return new


cdef int restore_claims(
    Matcher new,
    const int64_t[::1] generation,
    const int64_t[::1] classes,
    const int64_t[::1] slots,
    const int64_t[::1] unused,
) except -1:
    cdef Py_ssize_t i
    for i in range(slots.shape[0]):
        new.claims_end = i
        if slots[i] >= 0:
            new.start_claim(<int>classes[i], <int>slots[i])
        else:
            new.claim_slot[i] = new.claim_class[i] = NONE
        new.generation[i] = <uint32_t>generation[i]
    new.claims_end = slots.shape[0]
    for i in range(unused.shape[0]):
        new.claim_next[unused[i]] = new.free_claim
        new.free_claim = <int32_t>unused[i]
    return 0


cdef tuple _amounts_of(int64_t[:, ::1] table, int slot):
    cdef Py_ssize_t d
    return tuple([table[slot, d] for d in range(table.shape[1])])


def _same(what, ours, theirs):
    if not np.array_equal(ours, theirs):
        raise MatchStateError(f"the {what} differ from the totals of the claims")
