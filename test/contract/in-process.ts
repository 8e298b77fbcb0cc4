import type { ContentStore } from '../../src/content/content.ts';
import type { Snapshotter } from '../../src/snapshotters/snapshotter.ts';
export async function openInProcess(
  driver: string,
): Promise<AsyncDisposableStack & { content: ContentStore; snapshotter: Snapshotter }> {
  throw new Error(driver);
}
