// A run of many shards is folded: those that failed are shown, the others are a number for each state.

/** A run with more shards is folded. */
export const MOST_UNFOLDED = 30;
/** The states of shards, the worst first. */
export const WORST_FIRST = ["DEAD", "FAILED", "KILLED", "ACTIVE", "WAITING", "CANCELLED", "FINISHED"];
/** The states of shards that did not succeed: they are shown first, and never folded. */
export const BAD = WORST_FIRST.slice(0, 3);

/** How many shards of a run did not succeed. `states`: the number of shards by state. */
export const badOf = states => BAD.reduce((sum, state) => sum + (states[state] ?? 0), 0);
