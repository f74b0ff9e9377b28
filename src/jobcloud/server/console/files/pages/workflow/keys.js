// The keys of the jobs of a workflow. Its nodes have the names of the jobs of its team.

/** The key of a job of a workflow. */
export const jobOf = ({workflow, team}, job) => workflow.includes(":") ? `${team}:${job}` : job;

/** The keys of all jobs of a workflow. */
export const jobsOf = workflow => new Set(workflow.nodes.filter(node => node.job).map(node => jobOf(workflow, node.job)));
