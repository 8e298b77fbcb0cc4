import { SystemClock } from '../platform/linux/clock.ts';
import { LocalTransfers } from '../transfer/local-transfers.ts';
import type { Unpacker } from '../transfer/import.ts';
import type { Transfers } from '../transfer/transfer.ts';
import type { Stores } from './compose.ts';
import type { Nouns } from './namespaced.ts';

/** The one that containerd's clients mean when they name none. */
const USUAL_SNAPSHOTTER = 'overlayfs';

/** Images from and to archives, over the stores of a standalone socket. */
export function openTransfers(stores: Stores, { images, leases }: Nouns): Transfers {
  const { content, applier, snapshotters } = stores;
  const unpacker = (given: string): Unpacker | undefined => {
    const names = snapshotters.map(({ config }) => config.name);
    const usual = names.includes(USUAL_SNAPSHOTTER) ? USUAL_SNAPSHOTTER : names[0];
    const name = given === '' ? usual : given;
    const instance = snapshotters.find(({ config }) => config.name === name);
    if (instance === undefined) return undefined;
    return {
      name: instance.config.name,
      snapshotter: stores.snapshotter(instance.config.name),
      applier,
      canRebase: instance.capabilities.includes('rebase'),
    };
  };
  return new LocalTransfers({ content, images, leases, clock: new SystemClock(), unpacker });
}
