/* The C kernels of the compiled matcher: the score of a host and the tables of scores. Included by _match.pyx. */

#ifndef JOBCLOUD_MATCH_SCORE_H
#define JOBCLOUD_MATCH_SCORE_H

#include <stdint.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* In C for one attribute that Cython cannot write: the loops are compiled for several vector widths, and the
   widest that the machine has is chosen when the module is loaded. Integers give the same answer on each. */
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

enum { JOBCLOUD_BLOCK = 64, JOBCLOUD_FEW = 16, JOBCLOUD_INFEASIBLE = INT32_MAX, JOBCLOUD_PAYS = 1 << 30 };
enum { JOBCLOUD_LINE = 16, JOBCLOUD_SIDE_BY_SIDE = 16, JOBCLOUD_MOST_SIDE_BY_SIDE = 6, JOBCLOUD_WORDS = 20 };
enum { JOBCLOUD_TERMS = 17, JOBCLOUD_MOST_PENALTY = 1 << 28, JOBCLOUD_MOST_EXCESS = 64 };

/* One rule of a class: it holds where low <= count < high. `value` is NULL where each host counts by itself. */
typedef struct {
    const int32_t *counts, *value;
    int32_t low, high, weight, graded;
} jobcloud_term;

/* One host as scores see it: plane[0..2][d] of dimension d are what is free of it, clamped to [-1, INT32_MAX];
   1 / capacity as mantissa << 8 | exponent; and the free share << 8 | that share against the host's largest one.
   `level` is the least of the shares << 10 | the host's size << 1 | whether it is free in every dimension; -1:
   over-committed or closed, nothing fits. A size is a small float beside the median capacities,
   exponent << 5 | mantissa without its first bit. */
enum { FREE, SCALE, SHARE, PLANES };
enum { JOBCLOUD_WHOLE = 1 << 20, JOBCLOUD_OPENING = 1 << 13, JOBCLOUD_ASKEW = 1 << 14, JOBCLOUD_UNASKED = 1 << 16 };
enum { JOBCLOUD_LARGE = 1 << 12 };
enum { JOBCLOUD_SIZE_BITS = 11, JOBCLOUD_LEAST_SIZE = 32, JOBCLOUD_LARGEST_SIZE = (1 << 17) - 1 };
enum { JOBCLOUD_TILT = 56 };  /* 128ths of the largest share */

/* What a task needs of one dimension: `amount` clamped to INT32_MAX, and amount >> shift in 16 bits. */
typedef struct {
    int32_t amount, mantissa, shift;
} jobcloud_need;

/* One class and the hosts as its score sees them. Planes are [dimensions][PLANES][stride]; a row of `width` words
   holds the level and the planes of one host side by side. `payers` is NULL without a key; a host without payers
   needs `first` and comes after all that have some, and with `payers_only` it is out. `fitness` holds the weights
   of the parts of the score; NULL: it is "even" alone, for which there are vector loops. Where a class needs more
   than fits 32 bits, or so little that it may be no part of a host (`wide`), hosts are looked at one by one, and
   what fits is asked of the exact amounts, [slots][dimensions]. */
typedef struct {
    int dimensions, width;
    size_t stride;
    const jobcloud_need *request, *first;
    const int64_t *exact_request, *exact_first, *unclaimed;
    const int32_t *planes, *levels, *rows;
    const uint8_t *allowed;
    const int32_t *payers;
    int32_t payers_only;
    const int64_t *fitness;
    const int32_t *grouped;  /* claims of the class's group on each host; NULL: they do not matter */
    int32_t most, wide;
    int32_t terms;
    const int32_t *penalty;  /* of each host; NULL: none */
    const int32_t *judged;   /* of each host, what the caller's fitness says instead; NULL: there is none */
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

/* 1 / capacity; 0 without one. */
static uint32_t jobcloud_scale(int64_t capacity)
{
    int bits = jobcloud_bits((uint64_t)capacity);
    if (capacity == 0)
        return 0;
    bits = bits < 5 ? 5 : bits;
    return (uint32_t)(((unsigned __int128)1 << (bits + 15)) / (uint64_t)capacity) << 8 | (uint32_t)(bits - 5);
}

/* An amount in parts of 2^20 of the capacity, from its mantissa and shift. The product has 32 bits: a small amount
   of a capacity with more than 36 bits is no part at all. */
static inline int32_t jobcloud_share(uint32_t scale, int32_t mantissa, int32_t shift)
{
    int32_t places = (int32_t)(scale & 255) - shift;
    return places > 31 ? 0 : (int32_t)(((uint32_t)mantissa * (scale >> 8)) >> (places & 31));
}

/* Whether any of the amounts may be no part of a capacity with the exponent `deepest`: the vector loops shift by 31
   places at most. */
static int jobcloud_is_tiny(const jobcloud_need *need, int deepest, int dimensions)
{
    for (int d = 0; d < dimensions; d++)
        if (need[d].amount > 0 && deepest - need[d].shift > 31)
            return 1;
    return 0;
}

/* How large a host is beside the median capacities: the mean over the dimensions that it has. */
static int32_t jobcloud_size(const int64_t *total, const int64_t *median, int dimensions)
{
    uint64_t size = 0, known = 0;
    int exponent;
    for (int d = 0; d < dimensions; d++)
        if (total[d] > 0 && median[d] > 0) {
            uint64_t here = ((uint64_t)total[d] << JOBCLOUD_SIZE_BITS) / (uint64_t)median[d];
            size += here < JOBCLOUD_LARGEST_SIZE ? here : JOBCLOUD_LARGEST_SIZE;
            known++;
        }
    size = known ? size / known : 0;
    size = size < JOBCLOUD_LEAST_SIZE ? JOBCLOUD_LEAST_SIZE : size;
    exponent = jobcloud_bits(size) - 6;
    return exponent << 5 | (int32_t)((size >> exponent) & 31);
}

/* A part of the host as a part of the median one; wraps where the task does not fit, which is asked elsewhere. */
static inline int32_t jobcloud_sized(int32_t lost, int32_t level)
{
    const uint32_t size = (uint32_t)level >> 1;
    return (int32_t)(((uint32_t)lost * ((size & 31) | 32)) >> ((JOBCLOUD_SIZE_BITS - (size >> 5 & 15)) & 31));
}

/* What the host costs whatever is placed: for being opened, and for each time that it is twice the median one. */
static inline int32_t jobcloud_entry(int32_t level)
{
    const int32_t doubled = (level >> 6 & 15) - (JOBCLOUD_SIZE_BITS - 5);
    return (level & 1) * JOBCLOUD_OPENING + (doubled > 0 ? doubled : 0) * JOBCLOUD_LARGE;
}

/* Bring the row of a host up to date with its exact amounts. */
static void jobcloud_refresh(
    int32_t *row, const int64_t *unclaimed, const int64_t *total, int32_t size, int open, int dimensions)
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
            largest = share > largest ? share : largest;
            least = share < least ? share : least;
        }
        at[SHARE] = share;
    }
    per = largest ? ((uint32_t)1 << 27) / (uint32_t)largest : 0;
    for (int d = 0; d < dimensions; d++) {
        int32_t *at = row + 1 + PLANES * d, share = at[SHARE];
        at[SHARE] = share << 8 | (at[SCALE] ? (int32_t)((uint64_t)share * per >> 20) : 0);
    }
    row[0] = short_by < 0 ? -1 : least << 10 | size << 1 | untouched;
}

/* Copy the row of a host to the planes. */
static void jobcloud_spread(
    int32_t *planes, int32_t *levels, size_t stride, const int32_t *row, int host, int dimensions)
{
    levels[host] = row[0];
    for (int i = 0; i < PLANES * dimensions; i++)
        planes[(size_t)i * stride + host] = row[1 + i];
}

/* How many claims too many or too few there are for the rule; 0 where it holds. */
static inline int32_t jobcloud_excess(const jobcloud_term *term, int host)
{
    int32_t at = term->value ? term->value[host] : host, count;
    if (at < 0)
        return JOBCLOUD_MOST_EXCESS;
    count = term->counts[at];
    if (count < term->low)
        return 1;
    if (count < term->high)
        return 0;
    return count - term->high < JOBCLOUD_MOST_EXCESS ? count - term->high + 1 : JOBCLOUD_MOST_EXCESS;
}

/* What the host pays for the rules that it breaks and for being itself; -1 where one may not be broken. */
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
    return sum < JOBCLOUD_MOST_PENALTY ? sum : JOBCLOUD_MOST_PENALTY;
}

enum { EVEN, PACK, CONVEX, L2, SPREAD, STRAND, DOT, ALIGN };

/* The score of a host on which the need fits, from its parts. All shares are in parts of 2^20 of the capacity. */
static uint64_t jobcloud_mixed(const jobcloud_view *view, const int32_t *row, const jobcloud_need *need)
{
    const uint64_t whole = JOBCLOUD_WHOLE;
    const int64_t *fitness = view->fitness;
    uint64_t pack = 0, convex = 0, l2 = 0, dot = 0, least = whole, dimensions = 0, sum;
    uint64_t had_squared = 0, asked_squared = 0, product = 0, unasked = 0;
    int32_t tilt = 0, even;
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
        l2 += left * left >> 20;
        convex += left + (left * left >> 20) + (left * left * left >> 40);
        least = left < least ? left : least;
        dot += whole - (had * asked >> 20);
        product += had * asked;
        had_squared += had * had;
        asked_squared += asked * asked;
        tilt += (int32_t)(asked >> 6) * ((at[SHARE] & 255) - JOBCLOUD_TILT);
        unasked += need[d].amount == 0 && (at[SHARE] & 255) > 0;
    }
    even = jobcloud_sized((row[0] >> 10) - (int32_t)least, row[0]) + jobcloud_entry(row[0])
         + (int32_t)unasked * JOBCLOUD_UNASKED + (tilt < 0 ? JOBCLOUD_ASKEW : 0);
    if (dimensions == 0)
        least = 0;
    sum = fitness[EVEN] * (uint64_t)even + fitness[PACK] * pack + fitness[CONVEX] * (convex / 3)
        + fitness[L2] * l2 + fitness[SPREAD] * (dimensions * whole - pack)
        + fitness[STRAND] * (pack - dimensions * least) + fitness[DOT] * dot;
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

/* The score of one host. Whether a host is out is seldom to be foretold, so it is computed and not branched on. */
static inline __attribute__((always_inline)) int32_t jobcloud_score_one(const jobcloud_view *view, int host)
{
    const int32_t *row = view->rows + (size_t)host * view->width;
    const int32_t pays = view->payers && view->payers[host] == 0;
    const jobcloud_need *need = pays ? view->first : view->request;
    int32_t least = JOBCLOUD_WHOLE, tilt = 0, score = (pays ? JOBCLOUD_PAYS : 0) + jobcloud_entry(row[0]);
    int32_t bad = row[0] | -(pays & view->payers_only);
    if (view->allowed)
        bad |= -(int32_t)(view->allowed[host] == 0);
    if (view->grouped)
        bad |= -(int32_t)(view->grouped[host] >= view->most);
    for (int d = 0; d < view->dimensions; d++) {
        const int32_t *at = row + 1 + PLANES * d;
        const int32_t tilted = at[SHARE] & 255;
        int32_t left = at[SHARE] >> 8, asked;
        bad |= at[FREE] - need[d].amount;
        if (need[d].amount) {
            asked = jobcloud_share((uint32_t)at[SCALE], need[d].mantissa, need[d].shift);
            left -= asked;
            tilt += (asked >> 6) * (tilted - JOBCLOUD_TILT);
        } else
            score += tilted > 0 ? JOBCLOUD_UNASKED : 0;
        least = left < least ? left : least;
    }
    score += jobcloud_sized((row[0] >> 10) - least, row[0]) + (tilt < 0 ? JOBCLOUD_ASKEW : 0);
    if (view->wide && bad >= 0)
        bad = jobcloud_fits_exactly(view, host, pays) - 1;
    if (view->fitness && bad >= 0) {
        score = view->judged ? view->judged[host] : (int32_t)jobcloud_mixed(view, row, need);
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

/* Scores of `lanes` hosts from `base` on, a number that the compiler knows; returns the lowest. */
static inline __attribute__((always_inline)) int32_t jobcloud_score_lanes(
    const jobcloud_view *view, size_t base, const int lanes, int32_t *restrict out)
{
    int32_t bad[JOBCLOUD_BLOCK], least[JOBCLOUD_BLOCK], tilt[JOBCLOUD_BLOCK];
    int32_t lowest = JOBCLOUD_INFEASIBLE, usable = 0;
    const int32_t *restrict level = view->levels + base, *restrict planes = view->planes + base;
    const int32_t *restrict payers = view->payers ? view->payers + base : NULL;
    JOBCLOUD_EACH {  /* `bad` is negative where the task does not fit */
        bad[i] = level[i];
        least[i] = JOBCLOUD_WHOLE;
        tilt[i] = 0;
        out[i] = jobcloud_entry(level[i]);
    }
    if (view->allowed) {
        const uint8_t *restrict allowed = view->allowed + base;
        JOBCLOUD_EACH
            bad[i] |= -(int32_t)(allowed[i] == 0);
    }
    if (view->grouped) {
        const int32_t *restrict grouped = view->grouped + base, most = view->most;
        JOBCLOUD_EACH
            bad[i] |= -(int32_t)(grouped[i] >= most);
    }
    if (payers && view->payers_only) {
        JOBCLOUD_EACH
            bad[i] |= -(int32_t)(payers[i] == 0);
        payers = NULL;
    }
    JOBCLOUD_EACH
        usable |= ~bad[i];
    if (usable >= 0) {
        JOBCLOUD_EACH
            out[i] = JOBCLOUD_INFEASIBLE;
        return lowest;
    }
    if (payers)
        JOBCLOUD_EACH
            out[i] += payers[i] == 0 ? JOBCLOUD_PAYS : 0;
    for (int d = 0; d < view->dimensions; d++, planes += PLANES * view->stride) {
        const int32_t *restrict amount = planes + FREE * view->stride;
        const int32_t *restrict share = planes + SHARE * view->stride;
        const uint32_t *restrict scale = (const uint32_t *)(planes + SCALE * view->stride);
        const jobcloud_need request = view->request[d], first = view->first[d];
        if (payers && first.amount != request.amount)
            JOBCLOUD_EACH {
                const int32_t needed = payers[i] == 0 ? first.amount : request.amount;
                const uint32_t mantissa = (uint32_t)(payers[i] == 0 ? first.mantissa : request.mantissa);
                const uint32_t shift = (uint32_t)(payers[i] == 0 ? first.shift : request.shift);
                const int32_t asked = (int32_t)((mantissa * (scale[i] >> 8)) >> (((scale[i] & 255) - shift) & 31));
                const int32_t left = (share[i] >> 8) - asked, tilted = share[i] & 255;
                bad[i] |= amount[i] - needed;
                out[i] += needed == 0 && tilted > 0 ? JOBCLOUD_UNASKED : 0;
                least[i] = left < least[i] ? left : least[i];
                tilt[i] += (asked >> 6) * (tilted - JOBCLOUD_TILT);
            }
        else if (request.amount)
            JOBCLOUD_EACH {
                const int32_t asked = (int32_t)(((uint32_t)request.mantissa * (scale[i] >> 8))
                                                >> (((scale[i] & 255) - (uint32_t)request.shift) & 31));
                const int32_t left = (share[i] >> 8) - asked, tilted = share[i] & 255;
                bad[i] |= amount[i] - request.amount;
                least[i] = left < least[i] ? left : least[i];
                tilt[i] += (asked >> 6) * (tilted - JOBCLOUD_TILT);
            }
        else
            JOBCLOUD_EACH {
                const int32_t left = share[i] >> 8;
                least[i] = left < least[i] ? left : least[i];
                out[i] += (share[i] & 255) > 0 ? JOBCLOUD_UNASKED : 0;
            }
    }
    JOBCLOUD_EACH
        out[i] += jobcloud_sized((level[i] >> 10) - least[i], level[i]) + (tilt[i] < 0 ? JOBCLOUD_ASKEW : 0);
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

/* Scores of the n hosts from `base` on into out[0..63], infeasible beyond n; returns the lowest. */
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

/* As many hosts as scores fill a line of the cache, to be scored side by side: the words of their rows, and whether
   each needs `first`. */
typedef struct {
    int32_t word[JOBCLOUD_WORDS][JOBCLOUD_LINE], pays[JOBCLOUD_LINE];
} __attribute__((aligned(64))) jobcloud_lanes;

typedef int32_t jobcloud_four __attribute__((vector_size(16)));
#if defined(__clang__)
#define JOBCLOUD_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define JOBCLOUD_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (jobcloud_four){__VA_ARGS__})
#endif

/* Turn the rows of n hosts, 1 to JOBCLOUD_LINE, into columns, four by four words at a time; the last host stands
   for those beyond it. What else may rule a host out does so as its level would. */
static inline __attribute__((always_inline)) void jobcloud_line_up(
    const jobcloud_view *view, const int32_t *hosts, int n, const int dimensions, jobcloud_lanes *lanes)
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
            memcpy(lanes->word[at] + i, &a, 16);
            memcpy(lanes->word[at + 1] + i, &b, 16);
            memcpy(lanes->word[at + 2] + i, &c, 16);
            memcpy(lanes->word[at + 3] + i, &d, 16);
        }
    }
    if (view->allowed)
        for (int i = 0; i < n; i++)
            lanes->word[0][i] |= -(int32_t)(view->allowed[hosts[i]] == 0);
    if (view->grouped)
        for (int i = 0; i < n; i++)
            lanes->word[0][i] |= -(int32_t)(view->grouped[hosts[i]] >= view->most);
    if (view->payers)
        for (int i = 0; i < n; i++)
            lanes->pays[i] = view->payers[hosts[i]] == 0;
}

/* Scores of n hosts, up to a multiple of JOBCLOUD_LINE, as jobcloud_score_one has them. With a constant number of
   dimensions all is kept in registers. All hosts are lined up first: words just stored are waited for. */
static inline __attribute__((always_inline)) void jobcloud_score_lines(
    const jobcloud_view *view, const int32_t *hosts, int n, const int dimensions, const int keyed,
    int32_t *restrict out)
{
    jobcloud_lanes lines[JOBCLOUD_BLOCK / JOBCLOUD_LINE];
    int32_t unasked[JOBCLOUD_MOST_SIDE_BY_SIDE][2];
    for (int base = 0; base < n; base += JOBCLOUD_LINE)
        jobcloud_line_up(view, hosts + base, n - base < JOBCLOUD_LINE ? n - base : JOBCLOUD_LINE, dimensions,
                         &lines[base / JOBCLOUD_LINE]);
    for (int d = 0; d < dimensions; d++) {
        unasked[d][0] = view->request[d].amount ? 0 : JOBCLOUD_UNASKED;
        unasked[d][1] = view->first[d].amount ? 0 : JOBCLOUD_UNASKED;
    }
    for (const jobcloud_lanes *lanes = lines; n > 0; n -= JOBCLOUD_LINE, lanes++, out += JOBCLOUD_LINE)
        for (int i = 0; i < JOBCLOUD_LINE; i++) {
            const int32_t level = lanes->word[0][i], pays = keyed ? lanes->pays[i] : 0;
            int32_t bad = level, least = JOBCLOUD_WHOLE, tilt = 0;
            int32_t score = jobcloud_entry(level) + (pays ? JOBCLOUD_PAYS : 0);
            for (int d = 0; d < dimensions; d++) {
                const jobcloud_need request = view->request[d], first = view->first[d];
                const uint32_t scale = (uint32_t)lanes->word[1 + PLANES * d + SCALE][i];
                const uint32_t mantissa = (uint32_t)(pays ? first.mantissa : request.mantissa);
                const uint32_t shift = (scale & 255) - (uint32_t)(pays ? first.shift : request.shift);
                const int32_t asked = (int32_t)((mantissa * (scale >> 8)) >> (shift & 31));
                const int32_t share = lanes->word[1 + PLANES * d + SHARE][i], tilted = share & 255;
                const int32_t left = (share >> 8) - asked;
                bad |= lanes->word[1 + PLANES * d + FREE][i] - (pays ? first.amount : request.amount);
                score += tilted > 0 ? (pays ? unasked[d][1] : unasked[d][0]) : 0;
                least = left < least ? left : least;
                tilt += (asked >> 6) * (tilted - JOBCLOUD_TILT);
            }
            score += jobcloud_sized((level >> 10) - least, level) + (tilt < 0 ? JOBCLOUD_ASKEW : 0);
            out[i] = bad < 0 ? JOBCLOUD_INFEASIBLE : score;
        }
}

/* Whether hosts may be scored side by side. */
static inline int jobcloud_is_plain(const jobcloud_view *view)
{
    return view->dimensions <= JOBCLOUD_MOST_SIDE_BY_SIDE && !view->fitness && !view->wide && !view->terms
        && !view->penalty;
}

/* Scores of n hosts, from 1 to JOBCLOUD_BLOCK, into out, which has room for a multiple of JOBCLOUD_LINE. */
JOBCLOUD_WIDEST
static void jobcloud_score_hosts(const jobcloud_view *view, const int32_t *hosts, int n, int32_t *out)
{
#define JOBCLOUD_OF(dimensions) \
    case dimensions: \
        if (view->payers) \
            jobcloud_score_lines(view, hosts, n, dimensions, 1, out); \
        else \
            jobcloud_score_lines(view, hosts, n, dimensions, 0, out); \
        break;
    switch (view->dimensions) {
        JOBCLOUD_OF(1) JOBCLOUD_OF(2) JOBCLOUD_OF(3) JOBCLOUD_OF(4) JOBCLOUD_OF(5) JOBCLOUD_OF(6)
    }
}

static inline __attribute__((always_inline)) int32_t jobcloud_lowest(const int32_t *of, int n)
{
    int32_t lowest = JOBCLOUD_INFEASIBLE;
    for (int i = 0; i < n; i++)
        lowest = of[i] < lowest ? of[i] : lowest;
    return lowest;
}

/* The lowest of a line if `score` stood in place `at`: a score that was just stored there would be waited for. Not
   unrolled, as GCC would take the lanes apart. */
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

/* Where the value is first in lines of the cache; it must be there. */
static inline __attribute__((always_inline)) int jobcloud_where(const int32_t *of, int32_t value)
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

/* The scores of one class: of each host, the minima of 16 hosts and the minima of 16 of those. All three begin and,
   with hosts and minima that there are not, end with a line of the cache, so that a minimum is that of one line. */
typedef struct {
    int32_t *score, *line, *top;   /* one piece of memory; NULL: no table */
    int32_t lines, tops;
    int32_t best, best_score;      /* UNKNOWN: to be looked up in the minima */
    int32_t asks, misses, wait;
    uint64_t seen;                 /* the change up to which the scores are right */
} jobcloud_table;

/* Lines of the cache that so many words take. */
static inline int jobcloud_whole_lines(int words)
{
    return (words + JOBCLOUD_LINE - 1) / JOBCLOUD_LINE;
}

/* The minima of lines, and infeasible up to a whole line of them. */
static inline __attribute__((always_inline)) void jobcloud_take_minima(
    const int32_t *of, int lines, int32_t *minima)
{
    int line = 0;
    for (; line < lines; line++)
        minima[line] = jobcloud_lowest(of + (size_t)line * JOBCLOUD_LINE, JOBCLOUD_LINE);
    for (; line % JOBCLOUD_LINE; line++)
        minima[line] = JOBCLOUD_INFEASIBLE;
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
    jobcloud_take_minima(table->score, table->lines, table->line);
    jobcloud_take_minima(table->line, table->tops, table->top);
    table->best = -2;
}

/* Some hosts, each once, have other scores now: keep the minima and the best host right. Which minima that moves is
   seldom to be foretold, so they are taken anew and not branched on. */
static inline __attribute__((always_inline)) void jobcloud_set(
    jobcloud_table *table, const int32_t *hosts, const int32_t *score, int n)
{
    uint32_t moved[JOBCLOUD_BLOCK], lines = 0;
    int64_t lowest = INT64_MAX;
    for (int i = 0; i < n; i++) {
        const uint32_t host = (uint32_t)hosts[i], line = host / JOBCLOUD_LINE;
        const int32_t least = jobcloud_lowest_with(
            table->score + (size_t)line * JOBCLOUD_LINE, host % JOBCLOUD_LINE, score[i]);
        const int64_t here = (int64_t)score[i] << 32 | host;
        table->score[host] = score[i];
        lowest = here < lowest ? here : lowest;
        moved[lines] = line / JOBCLOUD_LINE;
        lines += least != table->line[line];
        table->line[line] = least;
    }
    for (uint32_t i = 0; i < lines; i++)
        table->top[moved[i]] = jobcloud_lowest(table->line + (size_t)moved[i] * JOBCLOUD_LINE, JOBCLOUD_LINE);
    if (table->best == -2)
        return;
    if (lowest < ((int64_t)table->best_score << 32 | (uint32_t)(table->best < 0 ? 0 : table->best))) {
        table->best = (int32_t)lowest;
        table->best_score = (int32_t)(lowest >> 32);
    } else if (table->best >= 0 && table->score[table->best] > table->best_score)
        table->best = -2;
}

/* Score one host anew. */
JOBCLOUD_WIDEST
static void jobcloud_mend(jobcloud_table *table, const jobcloud_view *view, int32_t host)
{
    const int32_t score = jobcloud_score_one(view, host);
    if (score != table->score[host])
        jobcloud_set(table, &host, &score, 1);
}

/* Score anew what changed since the table was right, `most` hosts at most; how many that were, and ~ that if there
   are more. `changed_at` and `older` are by host. A slot beyond the table was removed: what is not there has no
   score. */
JOBCLOUD_WIDEST
static int jobcloud_replay(jobcloud_table *table, const jobcloud_view *view, const uint64_t *changed_at,
                           const int32_t *older, int newest, int most)
{
    const int hosts = table->lines * JOBCLOUD_LINE;
    ptrdiff_t host = newest;
    int done = 0;
    while (host >= 0 && changed_at[host] > table->seen) {
        int32_t changed[JOBCLOUD_BLOCK], score[JOBCLOUD_BLOCK], n = 0, differ = 0;
        for (; n < JOBCLOUD_BLOCK && host >= 0 && changed_at[host] > table->seen; host = older[host]) {
            const ptrdiff_t at = host < hosts ? host : 0;
            __builtin_prefetch(table->score + at, 1);
            __builtin_prefetch(table->line + at / JOBCLOUD_LINE, 1);
            changed[n] = (int32_t)host;
            n += host < hosts;
        }
        if (done + n > most)
            return ~done;
        done += n;
        if (n >= JOBCLOUD_SIDE_BY_SIDE && jobcloud_is_plain(view))
            jobcloud_score_hosts(view, changed, n, score);
        else
            for (int i = 0; i < n; i++)
                score[i] = jobcloud_score_one(view, changed[i]);
        for (int i = 0; i < n; i++) {
            const int at = changed[i], now = score[i];
            score[differ] = now;
            changed[differ] = at;
            differ += now != table->score[at];
        }
        jobcloud_set(table, changed, score, differ);
    }
    return done;
}

JOBCLOUD_WIDEST
static int jobcloud_best(jobcloud_table *table)
{
    if (table->best == -2) {
        const int tops = jobcloud_whole_lines(table->tops) * JOBCLOUD_LINE;
        const int32_t lowest = jobcloud_lowest(table->top, tops);
        table->best = -1;
        table->best_score = lowest;
        if (lowest != JOBCLOUD_INFEASIBLE) {
            table->best = jobcloud_where(table->top, lowest);
            table->best = table->best * JOBCLOUD_LINE
                        + jobcloud_where(table->line + (size_t)table->best * JOBCLOUD_LINE, lowest);
            table->best = table->best * JOBCLOUD_LINE
                        + jobcloud_where(table->score + (size_t)table->best * JOBCLOUD_LINE, lowest);
        }
    }
    return table->best;
}

#endif
