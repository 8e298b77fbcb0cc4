// What src/content/content.ts and src/snapshotters/snapshotter.ts promise, shown by the
// implementation and by the same implementation behind a daemon's socket and our own gRPC client.
import { Daemon, DRIVERS } from '../support/daemon.ts';
import { rootFor } from '../support/loop-fs.ts';
import { contentSuite, emptyContent } from './content.suite.ts';
import { openInProcess, type Opened } from './in-process.ts';
import {
  commitCannotSetTheParentOfASnapshotThatHasNone,
  commitCanSetTheParentOfASnapshotThatHasNone,
  emptySnapshotter,
  snapshotterSuite,
} from './snapshotter.suite.ts';
import { runSuite } from './suite.ts';

async function openBehindSocket(driver: string): Promise<Opened> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await rootFor(driver, 'contract'));
  const daemon = stack.use(await Daemon.start({ root: folder.path, snapshotter: driver }));
  const { content, snapshotter } = daemon.client;
  const all = stack.move();
  return { content, snapshotter, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

for (const [where, open] of [
  ['in process', openInProcess],
  ['behind gRPC', openBehindSocket],
] as const) {
  runSuite(`content ${where}`, contentSuite, {
    open: async () => {
      const opened = await open('overlayfs');
      return { ...opened, subject: opened.content };
    },
    empty: emptyContent,
  });
  for (const driver of DRIVERS) {
    const rebase =
      driver === 'overlayfs'
        ? commitCanSetTheParentOfASnapshotThatHasNone
        : commitCannotSetTheParentOfASnapshotThatHasNone;
    runSuite(`${driver} ${where}`, [...snapshotterSuite, rebase], {
      open: async () => {
        const opened = await open(driver);
        return { ...opened, subject: opened.snapshotter };
      },
      empty: emptySnapshotter,
    });
  }
}
