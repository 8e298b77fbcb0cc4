import { join } from 'node:path';
import { silentLog } from '../../src/base/log.ts';
import type { ContentStore } from '../../src/content/content.ts';
import { compose } from '../../src/daemon/compose.ts';
import { configFromFlags } from '../../src/daemon/config.ts';
import type { Applier } from '../../src/diff/diff.ts';
import { drivers } from '../../src/snapshotters/drivers.ts';
import type { Snapshotter } from '../../src/snapshotters/snapshotter.ts';
import { rootFor } from '../support/loop-fs.ts';
import { repository } from '../support/temporary.ts';

export interface Opened extends AsyncDisposable {
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
}

/** The stores of a daemon, and its layer engine. */
export interface InProcess extends Opened {
  readonly applier: Applier;
}

/** The stores of a daemon without its sockets. */
export async function openInProcess(
  driver: string,
  root = rootFor(driver, 'contract'),
): Promise<InProcess> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await root);
  const flags = { socket: '/unused', root: folder.path, snapshotter: driver };
  const stores = stack.use(
    await compose(configFromFlags(flags, drivers), {
      log: silentLog,
      workers: {
        files: join(repository, 'src/daemon/worker.ts'),
        layers: join(repository, 'src/daemon/layer-worker.ts'),
      },
      onFatal: (error) => {
        throw error;
      },
    }),
  );
  await stores.recovered;
  const all = stack.move();
  return {
    content: stores.content,
    applier: stores.applier,
    snapshotter: stores.snapshotter(driver),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}
