/* The C kernels of the compiled matcher: the score of a host, and the tables of scores. Only _match.pyx includes this
   file. docs/matcher.md, "Fitness", defines the score. */

#ifndef JOBCLOUD_MATCH_SCORE_H
#define JOBCLOUD_MATCH_SCORE_H

#include <stdint.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Written in C because Cython cannot express target_clones: the compiler emits the loops for several vector widths,
   and the loader picks the widest that the CPU supports. All arithmetic is on integers, so every width gives the same
   result. */
#if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__)
#define JOBCLOUD_WIDEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
static const char *jobcloud_vector_path(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("x86-64-v4") ? "x86-64-v4 (AVX-512)"
         : __builtin_cpu_supports("x86-64-v3") ? "x86-64-v3 (AVX2)" : "x86-64 (SSE2)";
}
#else
#define JOBCLOUD_WIDEST
static const char *jobcloud_vector_path(void) { return "the compiler's baseline"; }
#endif

enum { JOBCLOUD_INFEASIBLE = INT32_MAX, JOBCLOUD_UNKNOWN = -2 };
/* Added to the score of a host on which the task would pay the shared part, unless "even" alone is the fitness. */
enum { JOBCLOUD_PAYS = 1 << 30 };
/* Hosts in a block of a scan, in a small block, and in a cache line. */
enum { JOBCLOUD_BLOCK = 64, JOBCLOUD_FEW = 16, JOBCLOUD_LINE = 16 };
enum { JOBCLOUD_MIN_GATHERED = 2, JOBCLOUD_MAX_GATHERED_DIMENSIONS = 6, JOBCLOUD_COLUMN_WORDS = 20 };
enum { JOBCLOUD_QUARTER = 4 };
/* A table is flat if it has at most FLAT_LINES lines, or if more than one host per LINES_PER_CHANGE lines changed between
   the last two requests. Searching so few lines costs less than updating so many minima. */
enum { JOBCLOUD_FLAT_LINES = 16, JOBCLOUD_LINES_PER_CHANGE = 2 };
enum { JOBCLOUD_TERMS = 17, JOBCLOUD_MAX_PENALTY = 1 << 28, JOBCLOUD_MAX_EXCESS = 64 };

/* One rule of a class. If `graded`, the weight is paid for each claim in excess. The rule holds if low <= count <
   high. `value` is NULL if the rule counts each host on its own. */
typedef struct {
    const int32_t *counts, *value;
    int32_t low, high, weight, graded;
} jobcloud_term;

/* The row of a host: its level, then PLANES words for each dimension d.
   FREE: the free amount, clamped to [-1, INT32_MAX].
   SCALE: 1 / capacity as mantissa << 8 | exponent; 0 if the capacity is 0.
   SHARE: the free share << 8 | that share relative to the host's largest free share in a dimension that counts, in
   128ths. If the dimension does not count, this is JOBCLOUD_BALANCED, or 0 if less than 1/128 is free.
   The level is the least free share << 10 | the host's size << 1 | 1 if nothing is claimed. It is -1 if the host is
   disabled, exclusively claimed or over-committed: then no task fits. The size relates the host to the median
   capacities. It is a small float: exponent << 5 | mantissa without its leading bit. */
enum { FREE, SCALE, SHARE, PLANES };
enum { JOBCLOUD_WHOLE = 1 << 20, JOBCLOUD_OPENING = 1 << 13, JOBCLOUD_IMBALANCE = 1 << 14, JOBCLOUD_UNASKED = 1 << 16 };
enum { JOBCLOUD_LARGE = 1 << 12, JOBCLOUD_STARTING = 1 << 13, JOBCLOUD_MAX_FULL = 3 << 15 };
enum { JOBCLOUD_SIZE_BITS = 11, JOBCLOUD_LEAST_SIZE = 32, JOBCLOUD_LARGEST_SIZE = (1 << 17) - 1 };
enum { JOBCLOUD_BALANCED = 56 };  /* 7/16 of the largest share, in 128ths */
enum { JOBCLOUD_VOTE = 1 << 10, JOBCLOUD_VOTES_TO_COUNT = 16, JOBCLOUD_MAX_DIMENSIONS = 64 };

/* The amount that a task needs of one dimension: `amount` is clamped to INT32_MAX, `mantissa` is amount >> shift in
   16 bits. */
typedef struct {
    int32_t amount, mantissa, shift;
} jobcloud_need;

/* One class, and the hosts as its score sees them.
   Planes are [dimensions][PLANES][stride]. A row of `width` words holds the level and the planes of one host.
   `key_claims` counts the live claims with the class's shared key on each host; NULL if the class has no key. A host
   without such a claim needs `first` instead of `request`. With "even" alone it costs jobcloud_start_cost; otherwise
   it ranks below all hosts with such a claim, and `with_key_only` excludes it.
   `fitness` holds the weights of the parts of the score, then that of each dimension to pack; NULL selects "even"
   alone, which has vector loops.
   `wide` is set if the class needs more than 32 bits of some dimension, or so little that its share may round to 0.
   Then hosts are scored one at a time, and fit is decided on the exact amounts, [slots][dimensions]. */
typedef struct {
    int dimensions, width;
    size_t stride;
    const jobcloud_need *request, *first;
    const int64_t *exact_request, *exact_first, *unclaimed;
    const int32_t *planes, *levels, *rows;
    const uint8_t *allowed;
    const int32_t *key_claims;
    int32_t with_key_only;
    const int64_t *fitness;
    const int32_t *grouped;  /* claims of the class's group on each host; NULL: no limit per host */
    int32_t max_per_host, wide;
    int32_t terms;
    const int32_t *penalty;  /* by host; NULL: none */
    const int32_t *custom;   /* by host, the results of the custom fitness; NULL: none */
    jobcloud_term term[JOBCLOUD_TERMS];
} jobcloud_view;

static inline int jobcloud_bits(uint64_t amount)
{
    return amount ? 64 - __builtin_clzll(amount) : 0;
}

static void jobcloud_set_need(jobcloud_need *need, const int64_t *amount, int dimensions)
{
    for (int d = 0; d < dimensions; d++) {
        int shift = jobcloud_bits((uint64_t)amount[d]) - 16;
        need[d].shift = shift > 0 ? shift : 0;
        need[d].mantissa = (int32_t)(amount[d] >> need[d].shift);
        need[d].amount = amount[d] < INT32_MAX ? (int32_t)amount[d] : INT32_MAX;
    }
}

/* 1 / capacity as mantissa << 8 | exponent; 0 if the capacity is 0. */
static uint32_t jobcloud_scale(int64_t capacity)
{
    int bits = jobcloud_bits((uint64_t)capacity);
    if (capacity == 0)
        return 0;
    bits = bits < 5 ? 5 : bits;
    return (uint32_t)(((unsigned __int128)1 << (bits + 15)) / (uint64_t)capacity) << 8 | (uint32_t)(bits - 5);
}

/* An amount in units of 2^-20 of the capacity, from its mantissa and shift. The product has 32 bits, so a small
   amount of a capacity of more than 36 bits counts as 0. */
static inline int32_t jobcloud_share(uint32_t scale, int32_t mantissa, int32_t shift)
{
    int32_t places = (int32_t)(scale & 255) - shift;
    return places > 31 ? 0 : (int32_t)(((uint32_t)mantissa * (scale >> 8)) >> (places & 31));
}

/* Whether any amount may round to 0 on a host whose capacity has the exponent `max_exponent`. The vector loops shift
   by at most 31 places and cannot represent such an amount. */
static int jobcloud_is_tiny(const jobcloud_need *need, int max_exponent, int dimensions)
{
    for (int d = 0; d < dimensions; d++)
        if (need[d].amount > 0 && max_exponent - need[d].shift > 31)
            return 1;
    return 0;
}

/* Add (by = 1) or remove (by = -1) the votes of a class: its need in each dimension as a share of the median capacity,
   divided by its largest share. */
static void jobcloud_vote(int64_t *votes, const int64_t *need, const int64_t *median, int dimensions, int by)
{
    const uint64_t limit = (uint64_t)1 << 40;
    uint64_t share[JOBCLOUD_MAX_DIMENSIONS], largest = 0;
    for (int d = 0; d < dimensions; d++) {
        unsigned __int128 here = median[d] > 0 ? ((unsigned __int128)need[d] << 20) / (uint64_t)median[d] : 0;
        share[d] = here < limit ? (uint64_t)here : limit;
        largest = share[d] > largest ? share[d] : largest;
    }
    for (int d = 0; d < dimensions && largest > 0; d++)
        votes[d] += by * (int64_t)(share[d] * JOBCLOUD_VOTE / largest);
}

/* Find the dimensions that count: those with a sixteenth of the most votes. Returns whether they changed. */
static int jobcloud_count_dimensions(uint8_t *counted, const int64_t *votes, int dimensions)
{
    int64_t most = 1;
    int changed = 0;
    for (int d = 0; d < dimensions; d++)
        most = votes[d] > most ? votes[d] : most;
    for (int d = 0; d < dimensions; d++) {
        const uint8_t now = JOBCLOUD_VOTES_TO_COUNT * votes[d] >= most;
        changed |= now != counted[d];
        counted[d] = now;
    }
    return changed;
}

/* The amount at place `at` of `n` amounts in ascending order. Reorders them. */
static int64_t jobcloud_in_order(int64_t *amount, int n, int at)
{
    int low = 0, high = n - 1;
    while (low < high) {
        const int64_t pivot = amount[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (amount[i] < pivot)
                i++;
            while (amount[j] > pivot)
                j--;
            if (i <= j) {
                const int64_t swapped = amount[i];
                amount[i++] = amount[j];
                amount[j--] = swapped;
            }
        }
        if (at <= j)
            high = j;
        else if (at >= i)
            low = i;
        else
            break;
    }
    return amount[at];
}

/* The size of a host relative to the median capacities: the mean over the dimensions that it has and that count. */
static int32_t jobcloud_size(const int64_t *total, const int64_t *median, const uint8_t *counted, int dimensions)
{
    uint64_t size = 0, known = 0;
    int exponent;
    for (int d = 0; d < dimensions; d++)
        if (total[d] > 0 && median[d] > 0 && counted[d]) {
            uint64_t here = ((uint64_t)total[d] << JOBCLOUD_SIZE_BITS) / (uint64_t)median[d];
            size += here < JOBCLOUD_LARGEST_SIZE ? here : JOBCLOUD_LARGEST_SIZE;
            known++;
        }
    size = known ? size / known : 0;
    size = size < JOBCLOUD_LEAST_SIZE ? JOBCLOUD_LEAST_SIZE : size;
    exponent = jobcloud_bits(size) - 6;
    return exponent << 5 | (int32_t)((size >> exponent) & 31);
}

/* Convert a share of the host to a share of the median host. The product may wrap if the task does not fit; then the
   host is infeasible and the result unused. */
static inline int32_t jobcloud_cluster_loss(int32_t lost, int32_t level)
{
    const uint32_t size = (uint32_t)level >> 1;
    return (int32_t)(((uint32_t)lost * ((size & 31) | 32)) >> ((JOBCLOUD_SIZE_BITS - (size >> 5 & 15)) & 31));
}

/* The part of the score that does not depend on the task: the cost of opening an unused host, plus a cost that grows
   with the square of the doublings of the host's size over the median. */
static inline int32_t jobcloud_fixed_cost(int32_t level)
{
    const int32_t doubled = (level >> 6 & 15) - (JOBCLOUD_SIZE_BITS - 5);
    return (level & 1) * JOBCLOUD_OPENING + (doubled > 0 ? doubled * doubled : 0) * JOBCLOUD_LARGE;
}

/* The cost of starting an executor on a host with this level: on a full host, the executor would get few tasks. It is
   limited, so that the fullest hosts get the last small tasks, and large gaps remain for large tasks. */
static inline int32_t jobcloud_start_cost(int32_t level)
{
    const int32_t full = (JOBCLOUD_WHOLE - (level >> 10)) >> 10;
    const int32_t cost = full * full * full >> 9;
    return JOBCLOUD_STARTING + (cost < JOBCLOUD_MAX_FULL ? cost : JOBCLOUD_MAX_FULL);
}

/* Update the row of a host from its exact amounts. */
static void jobcloud_refresh_row(
    int32_t *row, const int64_t *unclaimed, const int64_t *total, const uint8_t *counted, int32_t size, int open,
    int dimensions)
{
    int32_t least = JOBCLOUD_WHOLE, largest = 0, untouched = 1, short_by = open ? 0 : -1;
    uint32_t per;
    for (int d = 0; d < dimensions; d++) {
        int32_t *at = row + 1 + PLANES * d, share = JOBCLOUD_WHOLE;
        int64_t amount = unclaimed[d];
        at[FREE] = amount < 0 ? -1 : amount < INT32_MAX ? (int32_t)amount : INT32_MAX;
        short_by |= at[FREE];
        untouched &= amount == total[d];
        if (at[SCALE] && amount >= 0) {
            int shift = jobcloud_bits((uint64_t)amount) - 16;
            shift = shift > 0 ? shift : 0;
            share = jobcloud_share((uint32_t)at[SCALE], (int32_t)(amount >> shift), shift);
            share = amount == total[d] && !counted[d] ? JOBCLOUD_WHOLE : share;
            largest = counted[d] && share > largest ? share : largest;
            least = share < least ? share : least;
        }
        at[SHARE] = share;
    }
    per = largest ? ((uint32_t)1 << 27) / (uint32_t)largest : 0;
    for (int d = 0; d < dimensions; d++) {
        int32_t *at = row + 1 + PLANES * d, share = at[SHARE];
        int32_t relative = counted[d] ? (int32_t)((uint64_t)share * per >> 20) : (share >> 13 > 0) * JOBCLOUD_BALANCED;
        at[SHARE] = share << 8 | (at[SCALE] ? relative : 0);
    }
    row[0] = short_by < 0 ? -1 : least << 10 | size << 1 | untouched;
}

/* Copy the row of a host to the planes. */
static void jobcloud_copy_to_planes(
    int32_t *planes, int32_t *levels, size_t stride, const int32_t *row, int host, int dimensions)
{
    levels[host] = row[0];
    for (int i = 0; i < PLANES * dimensions; i++)
        planes[(size_t)i * stride + host] = row[1 + i];
}

/* The number of claims by which the host breaks the rule, at most JOBCLOUD_MAX_EXCESS; 0 if the rule holds. */
static inline int32_t jobcloud_excess(const jobcloud_term *term, int host)
{
    int32_t at = term->value ? term->value[host] : host, count;
    if (at < 0)
        return JOBCLOUD_MAX_EXCESS;
    count = term->counts[at];
    if (count < term->low)
        return 1;
    if (count < term->high)
        return 0;
    return count - term->high < JOBCLOUD_MAX_EXCESS ? count - term->high + 1 : JOBCLOUD_MAX_EXCESS;
}

/* The host's own penalty plus the penalties of the rules that it breaks; -1 if it breaks a rule without a weight. */
static int64_t jobcloud_penalty(const jobcloud_view *view, int host)
{
    int64_t sum = view->penalty ? view->penalty[host] : 0;
    for (int i = 0; i < view->terms; i++) {
        const jobcloud_term *term = &view->term[i];
        int64_t excess = jobcloud_excess(term, host);
        if (excess > 0 && term->weight == 0)
            return -1;
        sum += excess > 0 ? (term->graded ? excess : 1) * term->weight : 0;
    }
    return sum < JOBCLOUD_MAX_PENALTY ? sum : JOBCLOUD_MAX_PENALTY;
}

enum { EVEN, PACK, CONVEX, L2, SPREAD, STRAND, DOT, ALIGN, PARTS };

/* The score of a feasible host for a weighted mix of parts. All shares are in units of 2^-20 of the capacity. */
static uint64_t jobcloud_weighted_score(const jobcloud_view *view, const int32_t *row, const jobcloud_need *need)
{
    const uint64_t whole = JOBCLOUD_WHOLE;
    const int64_t *fitness = view->fitness;
    uint64_t pack = 0, convex = 0, l2 = 0, dot = 0, least = whole, dimensions = 0, packed = 0, sum;
    uint64_t had_squared = 0, asked_squared = 0, product = 0, unasked = 0;
    int32_t balance = 0, even;
    for (int d = 0; d < view->dimensions; d++) {
        const int32_t *at = row + 1 + PLANES * d;
        uint64_t left, had, asked;
        if (at[SCALE] == 0)
            continue;
        had = (uint64_t)(at[SHARE] >> 8);
        asked = (uint64_t)jobcloud_share((uint32_t)at[SCALE], need[d].mantissa, need[d].shift);
        left = had - asked;
        dimensions++;
        pack += left;
        packed += fitness[PARTS + d] * left;
        l2 += left * left >> 20;
        convex += left + (left * left >> 20) + (left * left * left >> 40);
        least = left < least ? left : least;
        dot += whole - (had * asked >> 20);
        product += had * asked;
        had_squared += had * had;
        asked_squared += asked * asked;
        balance += (int32_t)(asked >> 6) * ((at[SHARE] & 255) - JOBCLOUD_BALANCED);
        unasked += need[d].amount == 0 && (at[SHARE] & 255) > 0;
    }
    even = jobcloud_cluster_loss((row[0] >> 10) - (int32_t)least, row[0]) + jobcloud_fixed_cost(row[0])
         + (int32_t)unasked * JOBCLOUD_UNASKED + (balance < 0 ? JOBCLOUD_IMBALANCE : 0);
    if (dimensions == 0)
        least = 0;
    sum = fitness[EVEN] * (uint64_t)even + fitness[PACK] * pack + fitness[CONVEX] * (convex / 3)
        + fitness[L2] * l2 + fitness[SPREAD] * (dimensions * whole - pack)
        + fitness[STRAND] * (pack - dimensions * least) + fitness[DOT] * dot + packed;
    if (fitness[ALIGN]) {
        unsigned __int128 squares = (unsigned __int128)had_squared * asked_squared;
        unsigned __int128 cosine = squares ? (((unsigned __int128)product * product) << 20) / squares : 0;
        sum += fitness[ALIGN] * (whole - (uint64_t)cosine);
    }
    return sum >> 10;
}

static int jobcloud_fits_exactly(const jobcloud_view *view, int host, int pays)
{
    const int64_t *unclaimed = view->unclaimed + (size_t)host * view->dimensions;
    const int64_t *need = pays ? view->exact_first : view->exact_request;
    for (int d = 0; d < view->dimensions; d++)
        if (unclaimed[d] < need[d])
            return 0;
    return 1;
}

static inline __attribute__((always_inline)) jobcloud_need jobcloud_select(
    int condition, jobcloud_need yes, jobcloud_need no)
{
    return (jobcloud_need){
        condition ? yes.amount : no.amount, condition ? yes.mantissa : no.mantissa, condition ? yes.shift : no.shift};
}

/* The penalty of a dimension that a host has and the need does not ask for. */
static inline __attribute__((always_inline)) int32_t jobcloud_unasked(jobcloud_need need)
{
    return need.amount ? 0 : JOBCLOUD_UNASKED;
}

/* Negative if the mask excludes the host, or if the host has as many claims of the group as the class allows. */
static inline __attribute__((always_inline)) int32_t jobcloud_exclusion(const jobcloud_view *view, int host)
{
    int32_t bad = 0;
    if (view->allowed)
        bad |= -(int32_t)(view->allowed[host] == 0);
    if (view->grouped)
        bad |= -(int32_t)(view->grouped[host] >= view->max_per_host);
    return bad;
}

/* Add one dimension to the sums of a host; `bad` becomes negative if the need does not fit. This is the only definition
   of the "even" score. `unasked` is jobcloud_unasked(need), which callers compute outside their loops. `wide` is a
   compile-time constant; with 0, all shifts are known to be at most 31 places. */
static inline __attribute__((always_inline)) void jobcloud_add_dimension(
    int32_t *bad, int32_t *least, int32_t *balance, int32_t *score,
    int32_t amount, uint32_t scale, int32_t share, jobcloud_need need, int32_t unasked, const int wide)
{
    const uint32_t places = (scale & 255) - (uint32_t)need.shift;
    const int32_t relative = share & 255;
    const int32_t asked = wide ? jobcloud_share(scale, need.mantissa, need.shift)
                               : (int32_t)(((uint32_t)need.mantissa * (scale >> 8)) >> (places & 31));
    const int32_t left = (share >> 8) - asked;
    *bad |= amount - need.amount;
    *score += -(int32_t)(relative > 0) & unasked;
    *least = left < *least ? left : *least;
    *balance += (asked >> 6) * (relative - JOBCLOUD_BALANCED);
}

/* The part of the "even" score that depends on all dimensions. */
static inline __attribute__((always_inline)) int32_t jobcloud_finish(int32_t level, int32_t least, int32_t balance)
{
    return jobcloud_cluster_loss((level >> 10) - least, level) + (balance < 0 ? JOBCLOUD_IMBALANCE : 0);
}

/* The score of one host. Feasibility is computed without branches, because such branches are hard to predict. */
static inline __attribute__((always_inline)) int32_t jobcloud_score_one(const jobcloud_view *view, int host)
{
    const int32_t *row = view->rows + (size_t)host * view->width;
    const int32_t pays = view->key_claims && view->key_claims[host] == 0;
    const jobcloud_need *need = pays ? view->first : view->request, nothing = {0, 0, 0};
    int32_t least = JOBCLOUD_WHOLE, balance = 0;
    int32_t score = (pays ? jobcloud_start_cost(row[0]) : 0) + jobcloud_fixed_cost(row[0]);
    int32_t bad = row[0] | -(pays & view->with_key_only) | jobcloud_exclusion(view, host);
    for (int d = 0; d < view->dimensions; d++) {
        const int32_t *at = row + 1 + PLANES * d;
        if (need[d].amount)
            jobcloud_add_dimension(&bad, &least, &balance, &score, at[FREE], (uint32_t)at[SCALE], at[SHARE],
                                   need[d], 0, 1);
        else
            jobcloud_add_dimension(&bad, &least, &balance, &score, 0, 0, at[SHARE], nothing, JOBCLOUD_UNASKED, 1);
    }
    score += jobcloud_finish(row[0], least, balance);
    if (view->wide && bad >= 0)
        bad = jobcloud_fits_exactly(view, host, pays) - 1;
    if (view->fitness && bad >= 0) {
        score = view->custom ? view->custom[host] : (int32_t)jobcloud_weighted_score(view, row, need);
        score += pays ? JOBCLOUD_PAYS : 0;
    }
    if ((view->terms || view->penalty) && bad >= 0) {
        const int64_t penalty = jobcloud_penalty(view, host);
        bad = penalty < 0 ? -1 : 0;
        score += (int32_t)penalty;
    }
    return bad < 0 ? JOBCLOUD_INFEASIBLE : score;
}

#define JOBCLOUD_EACH for (int i = 0; i < lanes; i++)

/* Scores of `lanes` hosts from `base` on, read from the planes. `lanes` is a compile-time constant. Returns the
   lowest score. */
static inline __attribute__((always_inline)) int32_t jobcloud_score_lanes(
    const jobcloud_view *view, size_t base, const int lanes, int32_t *restrict out)
{
    int32_t bad[JOBCLOUD_BLOCK], least[JOBCLOUD_BLOCK], balance[JOBCLOUD_BLOCK];
    int32_t lowest = JOBCLOUD_INFEASIBLE, usable = 0;
    const int32_t *restrict level = view->levels + base, *restrict planes = view->planes + base;
    const int32_t *restrict key_claims = view->key_claims ? view->key_claims + base : NULL;
    JOBCLOUD_EACH {
        bad[i] = level[i];
        least[i] = JOBCLOUD_WHOLE;
        balance[i] = 0;
        out[i] = jobcloud_fixed_cost(level[i]);
    }
    if (view->allowed) {
        const uint8_t *restrict allowed = view->allowed + base;
        JOBCLOUD_EACH
            bad[i] |= -(int32_t)(allowed[i] == 0);
    }
    if (view->grouped) {
        const int32_t *restrict grouped = view->grouped + base, max_per_host = view->max_per_host;
        JOBCLOUD_EACH
            bad[i] |= -(int32_t)(grouped[i] >= max_per_host);
    }
    JOBCLOUD_EACH
        usable |= ~bad[i];
    if (usable >= 0) {
        JOBCLOUD_EACH
            out[i] = JOBCLOUD_INFEASIBLE;
        return lowest;
    }
    if (key_claims)
        JOBCLOUD_EACH
            out[i] += key_claims[i] == 0 ? jobcloud_start_cost(level[i]) : 0;
    for (int d = 0; d < view->dimensions; d++, planes += PLANES * view->stride) {
        const int32_t *restrict amount = planes + FREE * view->stride;
        const int32_t *restrict share = planes + SHARE * view->stride;
        const uint32_t *restrict scale = (const uint32_t *)(planes + SCALE * view->stride);
        const jobcloud_need request = view->request[d], first = view->first[d], nothing = {0, 0, 0};
        const int32_t unasked_request = jobcloud_unasked(request), unasked_first = jobcloud_unasked(first);
        if (key_claims && first.amount != request.amount)
            JOBCLOUD_EACH
                jobcloud_add_dimension(&bad[i], &least[i], &balance[i], &out[i], amount[i], scale[i], share[i],
                                       jobcloud_select(key_claims[i] == 0, first, request),
                                       key_claims[i] == 0 ? unasked_first : unasked_request, 0);
        else if (request.amount)
            JOBCLOUD_EACH
                jobcloud_add_dimension(&bad[i], &least[i], &balance[i], &out[i], amount[i], scale[i], share[i],
                                       request, 0, 0);
        else
            JOBCLOUD_EACH
                jobcloud_add_dimension(&bad[i], &least[i], &balance[i], &out[i], 0, 0, share[i], nothing,
                                       JOBCLOUD_UNASKED, 0);
    }
    JOBCLOUD_EACH
        out[i] += jobcloud_finish(level[i], least[i], balance[i]);
    if (view->terms || view->penalty)
        JOBCLOUD_EACH
            if (bad[i] >= 0) {
                int64_t penalty = jobcloud_penalty(view, (int)base + i);
                bad[i] |= penalty < 0 ? -1 : 0;
                out[i] += (int32_t)penalty;
            }
    JOBCLOUD_EACH
        out[i] = bad[i] < 0 ? JOBCLOUD_INFEASIBLE : out[i];
    JOBCLOUD_EACH
        lowest = out[i] < lowest ? out[i] : lowest;
    return lowest;
}

/* Scores of the n hosts from `base` on into out[0..63]; places beyond n are infeasible. Returns the lowest score. */
JOBCLOUD_WIDEST
static int32_t jobcloud_score_block(const jobcloud_view *view, int base, int n, int32_t *out)
{
    int32_t lowest = JOBCLOUD_INFEASIBLE;
    int done = 0;
    if (view->fitness || view->wide)
        for (; done < n; done++) {
            out[done] = jobcloud_score_one(view, base + done);
            lowest = out[done] < lowest ? out[done] : lowest;
        }
    else if (n > JOBCLOUD_FEW) {
        lowest = jobcloud_score_lanes(view, (size_t)base, JOBCLOUD_BLOCK, out);
        done = JOBCLOUD_BLOCK;
    } else if (n > 0) {
        lowest = jobcloud_score_lanes(view, (size_t)base, JOBCLOUD_FEW, out);
        done = JOBCLOUD_FEW;
    }
    for (; done < JOBCLOUD_BLOCK; done++)
        out[done] = JOBCLOUD_INFEASIBLE;
    return lowest;
}

/* The rows of gathered hosts as columns, one host per lane. `pays`: whether the host needs `first`. The scores of all
   lanes fill one cache line. */
typedef struct {
    int32_t word[JOBCLOUD_COLUMN_WORDS][JOBCLOUD_LINE], pays[JOBCLOUD_LINE];
} __attribute__((aligned(64))) jobcloud_columns;

typedef int32_t jobcloud_four __attribute__((vector_size(16)));
#if defined(__clang__)
#define JOBCLOUD_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define JOBCLOUD_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (jobcloud_four){__VA_ARGS__})
#endif

/* Transpose the rows of n hosts, 1 to JOBCLOUD_LINE, into columns, in blocks of 4 x 4 words. The last host fills the
   lanes beyond n. An excluded host gets a negative level. */
static inline __attribute__((always_inline)) void jobcloud_gather_rows(
    const jobcloud_view *view, const int32_t *hosts, int n, const int dimensions, jobcloud_columns *columns)
{
    for (int i = 0; i < n; i += 4) {
        const int32_t *row[4];
        for (int k = 0; k < 4; k++)
            row[k] = view->rows + (size_t)hosts[i + k < n ? i + k : n - 1] * view->width;
#pragma GCC unroll 8
        for (int at = 0; at < 1 + PLANES * dimensions; at += 4) {
            jobcloud_four a, b, c, d, low, high, lower, higher;
            memcpy(&a, row[0] + at, 16);
            memcpy(&b, row[1] + at, 16);
            memcpy(&c, row[2] + at, 16);
            memcpy(&d, row[3] + at, 16);
            low = JOBCLOUD_SHUFFLE(a, b, 0, 4, 1, 5);
            high = JOBCLOUD_SHUFFLE(a, b, 2, 6, 3, 7);
            lower = JOBCLOUD_SHUFFLE(c, d, 0, 4, 1, 5);
            higher = JOBCLOUD_SHUFFLE(c, d, 2, 6, 3, 7);
            a = JOBCLOUD_SHUFFLE(low, lower, 0, 1, 4, 5);
            b = JOBCLOUD_SHUFFLE(low, lower, 2, 3, 6, 7);
            c = JOBCLOUD_SHUFFLE(high, higher, 0, 1, 4, 5);
            d = JOBCLOUD_SHUFFLE(high, higher, 2, 3, 6, 7);
            memcpy(columns->word[at] + i, &a, 16);
            memcpy(columns->word[at + 1] + i, &b, 16);
            memcpy(columns->word[at + 2] + i, &c, 16);
            memcpy(columns->word[at + 3] + i, &d, 16);
        }
    }
    if (view->allowed || view->grouped)
        for (int i = 0; i < n; i++)
            columns->word[0][i] |= jobcloud_exclusion(view, hosts[i]);
    if (view->key_claims)
        for (int i = 0; i < n; i++)
            columns->pays[i] = view->key_claims[hosts[i]] == 0;
}

/* Scores of `lanes` gathered hosts into `out`, equal to those of jobcloud_score_one. The numbers of dimensions and of
   lanes are compile-time constants, so that all values stay in registers. */
static inline __attribute__((always_inline)) void jobcloud_score_columns(
    const jobcloud_view *view, const jobcloud_columns *columns, const int dimensions, const int keyed, const int lanes,
    int32_t *restrict out)
{
    for (int i = 0; i < lanes; i++) {
        const int32_t level = columns->word[0][i], pays = keyed ? columns->pays[i] : 0;
        int32_t bad = level, least = JOBCLOUD_WHOLE, balance = 0;
        int32_t score = jobcloud_fixed_cost(level) + (pays ? jobcloud_start_cost(level) : 0);
        for (int d = 0; d < dimensions; d++) {
            const int (*words)[JOBCLOUD_LINE] = columns->word + 1 + PLANES * d;
            const jobcloud_need need = jobcloud_select(pays, view->first[d], view->request[d]);
            jobcloud_add_dimension(&bad, &least, &balance, &score, words[FREE][i], (uint32_t)words[SCALE][i],
                                   words[SHARE][i], need, jobcloud_unasked(need), 0);
        }
        score += jobcloud_finish(level, least, balance);
        out[i] = bad < 0 ? JOBCLOUD_INFEASIBLE : score;
    }
}

/* Scores of n hosts, 1 to JOBCLOUD_BLOCK. Few hosts are scored four at a time, in vectors as wide as those that the
   transposition stores, because a load right after a store of another width stalls. Many are all gathered first, for
   the same reason. */
static inline __attribute__((always_inline)) void jobcloud_score_rows(
    const jobcloud_view *view, const int32_t *hosts, int n, const int dimensions, const int keyed,
    int32_t *restrict out)
{
    jobcloud_columns lines[JOBCLOUD_BLOCK / JOBCLOUD_LINE];
    if (n < JOBCLOUD_LINE) {
        for (int at = 0; at < n; at += JOBCLOUD_QUARTER) {
            const int here = n - at < JOBCLOUD_QUARTER ? n - at : JOBCLOUD_QUARTER;
            jobcloud_gather_rows(view, hosts + at, here, dimensions, lines);
            jobcloud_score_columns(view, lines, dimensions, keyed, JOBCLOUD_QUARTER, out + at);
        }
        return;
    }
    for (int at = 0; at < n; at += JOBCLOUD_LINE)
        jobcloud_gather_rows(view, hosts + at, n - at < JOBCLOUD_LINE ? n - at : JOBCLOUD_LINE, dimensions,
                             &lines[at / JOBCLOUD_LINE]);
    for (int at = 0; at < n; at += JOBCLOUD_LINE)
        jobcloud_score_columns(view, &lines[at / JOBCLOUD_LINE], dimensions, keyed, JOBCLOUD_LINE, out + at);
}

/* Whether gathered hosts may be scored with vector loops. */
static inline int jobcloud_can_gather(const jobcloud_view *view)
{
    return view->dimensions <= JOBCLOUD_MAX_GATHERED_DIMENSIONS && !view->fitness && !view->wide && !view->terms
        && !view->penalty;
}

/* Scores of n hosts, 1 to JOBCLOUD_BLOCK, into `out`, which has room for a multiple of JOBCLOUD_LINE. */
JOBCLOUD_WIDEST
static void jobcloud_score_gathered(const jobcloud_view *view, const int32_t *hosts, int n, int32_t *out)
{
#define JOBCLOUD_CASE(dimensions) \
    case dimensions: \
        if (view->key_claims) \
            jobcloud_score_rows(view, hosts, n, dimensions, 1, out); \
        else \
            jobcloud_score_rows(view, hosts, n, dimensions, 0, out); \
        break;
    switch (view->dimensions) {
        JOBCLOUD_CASE(1) JOBCLOUD_CASE(2) JOBCLOUD_CASE(3) JOBCLOUD_CASE(4) JOBCLOUD_CASE(5) JOBCLOUD_CASE(6)
    }
}

static inline __attribute__((always_inline)) int32_t jobcloud_lowest(const int32_t *of, int n)
{
    int32_t lowest = JOBCLOUD_INFEASIBLE;
    for (int i = 0; i < n; i++)
        lowest = of[i] < lowest ? of[i] : lowest;
    return lowest;
}

/* The lowest score of a line as if `score` were stored at `at`. The store comes later, because loading it back right
   away would stall. Not unrolled: otherwise GCC splits the vector into scalars. */
static inline __attribute__((always_inline)) int32_t jobcloud_lowest_with(const int32_t *of, int at, int32_t score)
{
    int32_t lowest = JOBCLOUD_INFEASIBLE;
#pragma GCC unroll 1
    for (int i = 0; i < JOBCLOUD_LINE; i++) {
        const int32_t here = i == at ? score : of[i];
        lowest = here < lowest ? here : lowest;
    }
    return lowest;
}

/* The index of the first occurrence of a value in a sequence of cache lines. The value must be present. */
static inline __attribute__((always_inline)) int jobcloud_find(const int32_t *of, int32_t value)
{
    for (int at = 0;; at += JOBCLOUD_LINE) {
        uint32_t equal = 0;
#ifdef __SSE2__
        const __m128i *four = (const __m128i *)(of + at), wanted = _mm_set1_epi32(value);
        const __m128i a = _mm_cmpeq_epi32(_mm_loadu_si128(four), wanted);
        const __m128i b = _mm_cmpeq_epi32(_mm_loadu_si128(four + 1), wanted);
        const __m128i c = _mm_cmpeq_epi32(_mm_loadu_si128(four + 2), wanted);
        const __m128i d = _mm_cmpeq_epi32(_mm_loadu_si128(four + 3), wanted);
        equal = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)));
#else
        for (int i = 0; i < JOBCLOUD_LINE; i++)
            equal |= (uint32_t)(of[at + i] == value) << i;
#endif
        if (equal)
            return at + __builtin_ctz(equal);
    }
}

/* The scores of one class: one per host (`score`), the minima of 16 hosts each (`line`), and the minima of 16 of
   those each (`top`). A flat table does not use its minima. Each array starts at a cache line and is padded with
   infeasible entries to a whole one, so that every minimum covers exactly one line. */
typedef struct {
    int32_t *score, *line, *top;   /* one allocation; NULL: no table */
    int32_t lines, tops;
    int32_t best, best_score;      /* JOBCLOUD_UNKNOWN: search the minima */
    int32_t asks, misses, wait;
    int32_t flat;                  /* 1: the minima may be outdated */
    uint64_t seen;                 /* the change up to which the scores are current */
} jobcloud_table;

/* The number of cache lines that `words` words fill. */
static inline int jobcloud_whole_lines(int words)
{
    return (words + JOBCLOUD_LINE - 1) / JOBCLOUD_LINE;
}

/* Store the minimum of each line, padded with infeasible entries to a whole line. */
static inline __attribute__((always_inline)) void jobcloud_store_minima(
    const int32_t *of, int lines, int32_t *minima)
{
    int line = 0;
    for (; line < lines; line++)
        minima[line] = jobcloud_lowest(of + (size_t)line * JOBCLOUD_LINE, JOBCLOUD_LINE);
    for (; line % JOBCLOUD_LINE; line++)
        minima[line] = JOBCLOUD_INFEASIBLE;
}

static inline __attribute__((always_inline)) void jobcloud_store_all_minima(jobcloud_table *table)
{
    jobcloud_store_minima(table->score, table->lines, table->line);
    jobcloud_store_minima(table->line, table->tops, table->top);
    table->flat = 0;
}

JOBCLOUD_WIDEST
static void jobcloud_rebuild(jobcloud_table *table, const jobcloud_view *view, int hosts)
{
    const int room = table->lines * JOBCLOUD_LINE;
    int32_t rest[JOBCLOUD_BLOCK];
    for (int base = 0; base < room; base += JOBCLOUD_BLOCK) {
        const int n = hosts - base, whole = room - base >= JOBCLOUD_BLOCK;
        jobcloud_score_block(view, base, n < 0 ? 0 : n > JOBCLOUD_BLOCK ? JOBCLOUD_BLOCK : n,
                             whole ? table->score + base : rest);
        if (!whole)
            memcpy(table->score + base, rest, sizeof(int32_t) * (size_t)(room - base));
    }
    table->best = JOBCLOUD_UNKNOWN;
    table->flat = 1;
    if (table->lines > JOBCLOUD_FLAT_LINES)
        jobcloud_store_all_minima(table);
}

/* Store new scores of distinct hosts, and update the minima and the best host. Minima are recomputed without branches,
   because a branch on a changed minimum is hard to predict. */
static inline __attribute__((always_inline)) void jobcloud_store_scores(
    jobcloud_table *table, const int32_t *hosts, const int32_t *score, int n)
{
    uint32_t changed_tops[JOBCLOUD_BLOCK], lines = 0;
    int64_t lowest = INT64_MAX;
    for (int i = 0; i < n; i++) {
        const uint32_t host = (uint32_t)hosts[i], line = host / JOBCLOUD_LINE;
        const int32_t least = jobcloud_lowest_with(
            table->score + (size_t)line * JOBCLOUD_LINE, host % JOBCLOUD_LINE, score[i]);
        const int64_t here = (int64_t)score[i] << 32 | host;
        table->score[host] = score[i];
        lowest = here < lowest ? here : lowest;
        changed_tops[lines] = line / JOBCLOUD_LINE;
        lines += least != table->line[line];
        table->line[line] = least;
    }
    for (uint32_t i = 0; i < lines; i++)
        table->top[changed_tops[i]] = jobcloud_lowest(
            table->line + (size_t)changed_tops[i] * JOBCLOUD_LINE, JOBCLOUD_LINE);
    if (table->best == JOBCLOUD_UNKNOWN)
        return;
    if (lowest < ((int64_t)table->best_score << 32 | (uint32_t)(table->best < 0 ? 0 : table->best))) {
        table->best = (int32_t)lowest;
        table->best_score = (int32_t)(lowest >> 32);
    } else if (table->best >= 0 && table->score[table->best] > table->best_score)
        table->best = JOBCLOUD_UNKNOWN;
}

/* The lowest score of the table << 32 | the first host that has it, from the scores alone. */
static inline __attribute__((always_inline)) int64_t jobcloud_search(const jobcloud_table *table)
{
    enum { HOSTS = JOBCLOUD_FLAT_LINES * JOBCLOUD_LINE };
    const int hosts = table->lines * JOBCLOUD_LINE;
    int32_t lowest = jobcloud_lowest(table->score, hosts < HOSTS ? hosts : HOSTS);
    int at = 0;
    for (int base = HOSTS; base < hosts; base += HOSTS) {
        const int32_t here = jobcloud_lowest(table->score + base, hosts - base < HOSTS ? hosts - base : HOSTS);
        at = here < lowest ? base : at;
        lowest = here < lowest ? here : lowest;
    }
    return (int64_t)lowest << 32 | (uint32_t)(at + jobcloud_find(table->score + at, lowest));
}

static inline void jobcloud_set_best(jobcloud_table *table, int64_t lowest)
{
    table->best_score = (int32_t)(lowest >> 32);
    table->best = table->best_score == JOBCLOUD_INFEASIBLE ? -1 : (int32_t)lowest;
}

/* Store new scores of distinct hosts in a table of few lines, and find the best host. The old scores were set to
   JOBCLOUD_INFEASIBLE before the new ones were computed: a search right after the stores of the new ones would stall. */
static inline __attribute__((always_inline)) void jobcloud_store_few(
    jobcloud_table *table, const int32_t *hosts, const int32_t *score, int n)
{
    int64_t lowest = jobcloud_search(table);
    for (int i = 0; i < n; i++) {
        const int64_t here = (int64_t)score[i] << 32 | (uint32_t)hosts[i];
        lowest = here < lowest ? here : lowest;
        table->score[hosts[i]] = score[i];
    }
    jobcloud_set_best(table, lowest);
}

/* Compute the score of one host again. */
JOBCLOUD_WIDEST
static void jobcloud_rescore(jobcloud_table *table, const jobcloud_view *view, int32_t host)
{
    const int32_t score = jobcloud_score_one(view, host);
    if (table->flat) {
        table->score[host] = score;
        table->best = JOBCLOUD_UNKNOWN;
    } else if (score != table->score[host])
        jobcloud_store_scores(table, &host, &score, 1);
}

/* Compute again the scores of all hosts that changed since the table was current, at most `max_hosts` of them.
   Returns their number, or ~ of the number already done if there are more than `max_hosts`. `changed_at` and `older`
   are indexed by host. Slots beyond the table have been removed and have no score. */
JOBCLOUD_WIDEST
static int jobcloud_replay(jobcloud_table *table, const jobcloud_view *view, const uint64_t *changed_at,
                           const int32_t *older, int newest, int max_hosts)
{
    const int hosts = table->lines * JOBCLOUD_LINE, few_lines = table->lines <= JOBCLOUD_FLAT_LINES;
    ptrdiff_t host = newest;
    int done = 0;
    while (host >= 0 && changed_at[host] > table->seen) {
        int32_t changed[JOBCLOUD_BLOCK], score[JOBCLOUD_BLOCK], n = 0, differ = 0;
        for (; n < JOBCLOUD_BLOCK && host >= 0 && changed_at[host] > table->seen; host = older[host]) {
            const ptrdiff_t at = host < hosts ? host : 0;
            if (few_lines)
                table->score[at] = host < hosts ? JOBCLOUD_INFEASIBLE : table->score[at];
            else {
                __builtin_prefetch(table->score + at, 1);
                __builtin_prefetch(table->line + at / JOBCLOUD_LINE, 1);
            }
            changed[n] = (int32_t)host;
            n += host < hosts;
        }
        if (done + n > max_hosts)
            return ~done;
        done += n;
        if (n >= JOBCLOUD_MIN_GATHERED && jobcloud_can_gather(view))
            jobcloud_score_gathered(view, changed, n, score);
        else
            for (int i = 0; i < n; i++)
                score[i] = jobcloud_score_one(view, changed[i]);
        if (few_lines)
            jobcloud_store_few(table, changed, score, n);
        else if (table->flat) {
            for (int i = 0; i < n; i++)
                table->score[changed[i]] = score[i];
            table->best = JOBCLOUD_UNKNOWN;
        } else {
            for (int i = 0; i < n; i++) {
                const int at = changed[i], now = score[i];
                score[differ] = now;
                changed[differ] = at;
                differ += now != table->score[at];
            }
            jobcloud_store_scores(table, changed, score, differ);
        }
    }
    if (!table->flat)
        table->flat = done * JOBCLOUD_LINES_PER_CHANGE > table->lines;
    else if (!few_lines && done * JOBCLOUD_LINES_PER_CHANGE * 2 < table->lines)
        jobcloud_store_all_minima(table);
    return done;
}

JOBCLOUD_WIDEST
static int jobcloud_best(jobcloud_table *table)
{
    if (table->best == JOBCLOUD_UNKNOWN && table->flat) {
        jobcloud_set_best(table, jobcloud_search(table));
    } else if (table->best == JOBCLOUD_UNKNOWN) {
        const int tops = jobcloud_whole_lines(table->tops) * JOBCLOUD_LINE;
        const int32_t lowest = jobcloud_lowest(table->top, tops);
        table->best = -1;
        table->best_score = lowest;
        if (lowest != JOBCLOUD_INFEASIBLE) {
            table->best = jobcloud_find(table->top, lowest);
            table->best = table->best * JOBCLOUD_LINE
                        + jobcloud_find(table->line + (size_t)table->best * JOBCLOUD_LINE, lowest);
            table->best = table->best * JOBCLOUD_LINE
                        + jobcloud_find(table->score + (size_t)table->best * JOBCLOUD_LINE, lowest);
        }
    }
    return table->best;
}

#endif
