// The person, and what the person may do. Actions without the right are not offered; the API refuses them anyway.
import {get} from "./api.js";

export const me = {subject: "", via: "", teams: []};

export async function loadMe() {
  Object.assign(me, await get("whoami"));
  return me;
}

/** Whether the person has a verb in a team, or in the whole installation. */
export function can(verb, team = "*") {
  return me.teams.some(one => (one.team === "*" || one.team === team) && one.verbs.includes(verb));
}

/** Whether the person has a verb in any team. */
export function canSomewhere(verb) {
  return me.teams.some(one => one.verbs.includes(verb));
}
