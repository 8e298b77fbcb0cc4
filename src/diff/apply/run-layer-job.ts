import { resultOf, type JobRequest, type JobResult } from '../../platform/jobs/protocol.ts';
import { packLayer } from '../compare/pack-layer.ts';
import { readLayer, writeLayer, type LayerJobs } from './layer-jobs.ts';
import { rebaseLayers } from './rebase-layers.ts';

type Output = LayerJobs[keyof LayerJobs]['out'];

/** What a layer thread does with a message: blocking work. */
export const runJob = (request: JobRequest<LayerJobs>): Promise<JobResult<Output>> =>
  resultOf(() => run(request));

function run({ name, input }: JobRequest<LayerJobs>): Output | Promise<Output> {
  switch (name) {
    case 'readLayer':
      return readLayer(input);
    case 'writeLayer':
      return writeLayer(input);
    case 'rebaseLayers':
      return rebaseLayers(input);
    case 'packLayer':
      return packLayer(input);
  }
}
