import { dropUmask } from '../platform/linux/files.ts';

/** What the daemon's layer threads run; bundled apart, so that the others load no layer code. */
export { runJob } from '../diff/apply/run-layer-job.ts';

// What a layer makes gets its mode at once, not by a second call.
dropUmask();
