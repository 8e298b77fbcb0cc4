import { messageOf } from '../base/errors.ts';
import type { SnapshotDriver } from './driver.ts';
import type { Trash } from './trash.ts';
import { nodeOf, type SnapshotTree } from './tree.ts';

/**
 * Start-up: makes disk and tree agree. What has no record is the rest of an unacknowledged Prepare or
 * of an acknowledged Remove, and goes. An active snapshot or a view that lost its empty directories to
 * a crash gets them again. A committed one cannot be made again: it is reported and stays listed, so
 * that it can be removed.
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
    const there = onDisk.delete(snapshot.id);
    const node = nodeOf(snapshot);
    if (!driver.keepsDirectory(node)) continue;
    if (snapshot.kind === 'committed') {
      if (there && driver.committed?.(node) !== false) continue;
      warn(
        { key: snapshot.name, id: snapshot.id },
        'committed snapshot has lost its directory: remove it and what is above it',
      );
      continue;
    }
    try {
      await driver.repair(node);
    } catch (error) {
      warn(
        { key: snapshot.name, id: snapshot.id, error: messageOf(error) },
        'snapshot has lost its directory and cannot get it again: remove it',
      );
    }
  }
  for (const id of onDisk) trash.throwAway(id);
}
