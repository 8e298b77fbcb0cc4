// Seen from a namespace, content and snapshots keep what their contracts promise.
import type { RequestContext } from '../../src/base/context.ts';
import { isOpError } from '../../src/base/errors.ts';
import { contentSuite, emptyContent } from '../contract/content.suite.ts';
import { emptySnapshotter, snapshotterSuite } from '../contract/snapshotter.suite.ts';
import { runSuite } from '../contract/suite.ts';
import type { Daemon } from '../support/daemon.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { startAlone } from './client.ts';

const NAMESPACE = 'contract';

/** Unlike stores below, where it is no error, a namespace says of these that nothing was there. */
const LENIENT: ReadonlySet<unknown> = new Set(['delete', 'abort']);

/** The same, with every request in the namespace. */
const inNamespace = <T extends object>(subject: T): T =>
  new Proxy(subject, {
    get: (target, name) => {
      const method: unknown = Reflect.get(target, name);
      if (typeof method !== 'function') return method;
      return (ctx: RequestContext | undefined, ...rest: readonly unknown[]): unknown => {
        if (ctx === undefined) return Reflect.apply(method, target, rest);
        const inside = { signal: ctx.signal, leaseId: ctx.leaseId, namespace: NAMESPACE };
        const result: unknown = Reflect.apply(method, target, [inside, ...rest]);
        if (!LENIENT.has(name) || !(result instanceof Promise)) return result;
        return result.catch((error: unknown) => {
          if (!isOpError(error, 'NotFound')) throw error;
        });
      };
    },
  });

async function open<T extends object>(
  subjectOf: (daemon: Daemon) => T,
): Promise<{ readonly subject: T } & AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder('alone'));
  const daemon = stack.use(await startAlone(folder.path));
  const all = stack.move();
  return {
    subject: inNamespace(subjectOf(daemon)),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

runSuite('content in a namespace', contentSuite, {
  open: () => open(({ client }) => client.content),
  empty: emptyContent,
});
runSuite('snapshots in a namespace', snapshotterSuite, {
  open: () => open(({ client }) => client.snapshotter),
  empty: emptySnapshotter,
});
