/** What every thread of the daemon runs; bundled apart from the daemon. */
export { runJob } from '../platform/jobs/run-job.ts';
