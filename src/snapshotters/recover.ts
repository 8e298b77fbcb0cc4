import { messageOf } from '../base/errors.ts';
import type { SnapshotDriver } from './driver.ts';
import type { Trash } from './trash.ts';
import { nodeOf, type SnapshotTree } from './tree.ts';

/**
 * Start-up: makes disk and tree agree. What has no record is the rest of an unacknowledged Prepare or
 * of an acknowledged Remove, and goes. An active snapshot without its directory lost it, empty, to a
 * power cut and gets it again. A committed one cannot be made again: it is reported and stays
 * listed, so that it can be removed.
 */
export async function recover(
  tree: SnapshotTree,
  driver: SnapshotDriver,
  trash: Trash,
  warn: (fields: Record<string, unknown>, message: string) => void,
): Promise<void> {
  const onDisk = new Set(await driver.list());
  for (const id of onDisk) tree.reserveId(id);
  for (const snapshot of tree.all()) {
    if (onDisk.delete(snapshot.id)) continue;
    const node = nodeOf(snapshot);
    if (!driver.keepsDirectory(node)) continue;
    if (snapshot.kind === 'committed') {
      warn(
        { key: snapshot.name, id: snapshot.id },
        'committed snapshot has lost its directory: remove it and what is above it',
      );
      continue;
    }
    try {
      await driver.create(node);
    } catch (error) {
      warn(
        { key: snapshot.name, id: snapshot.id, error: messageOf(error) },
        'snapshot has lost its directory and cannot get it again: remove it',
      );
    }
  }
  for (const id of onDisk) trash.throwAway(id);
}
