import { encodeError, type EncodedError } from '../../platform/jobs/protocol.ts';
import { readLayer, writeLayer, type LayerJobs } from './layer-jobs.ts';

type JobRequest = {
  [Name in keyof LayerJobs]: { readonly name: Name; readonly input: LayerJobs[Name]['in'] };
}[keyof LayerJobs];

/** What a layer thread does with a message: blocking work, errors as values. */
export function runJob(
  request: JobRequest,
): { output: LayerJobs[keyof LayerJobs]['out'] } | { error: EncodedError } {
  try {
    return {
      output: request.name === 'readLayer' ? readLayer(request.input) : writeLayer(request.input),
    };
  } catch (error) {
    return { error: encodeError(error) };
  }
}
