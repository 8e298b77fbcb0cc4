/** What the daemon's layer threads run; bundled apart, so that the others load no layer code. */
export { runJob } from '../diff/apply/run-layer-job.ts';
