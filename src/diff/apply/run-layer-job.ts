import { encodeError, type EncodedError } from '../../platform/jobs/protocol.ts';
import { packLayer } from '../compare/pack-layer.ts';
import { readLayer, writeLayer, type LayerJobs } from './layer-jobs.ts';

type JobRequest = {
  [Name in keyof LayerJobs]: { readonly name: Name; readonly input: LayerJobs[Name]['in'] };
}[keyof LayerJobs];

type Output = LayerJobs[keyof LayerJobs]['out'];

/** What a layer thread does with a message: blocking work, errors as values. */
export async function runJob(
  request: JobRequest,
): Promise<{ output: Output } | { error: EncodedError }> {
  try {
    return { output: await run(request) };
  } catch (error) {
    return { error: encodeError(error) };
  }
}

function run({ name, input }: JobRequest): Output | Promise<Output> {
  switch (name) {
    case 'readLayer':
      return readLayer(input);
    case 'writeLayer':
      return writeLayer(input);
    case 'packLayer':
      return packLayer(input);
  }
}
