// With a containerd in the config, Diff puts its blobs there and Apply finds them there. What stands for
// containerd here is our own content service, beside leases that only note what is asked of them.
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { background, type RequestContext } from '../../src/base/context.ts';
import { NO_LABELS, type Labels } from '../../src/base/labels.ts';
import type { ContentStore } from '../../src/content/content.ts';
import { labelsFromWire } from '../../src/grpc/convert/labels.ts';
import { containerd, google } from '../../src/grpc/gen/wire.js';
import { unary, type Service } from '../../src/grpc/service.ts';
import { contentService } from '../../src/grpc/services/content.ts';
import { openInProcess } from '../contract/in-process.ts';
import { Daemon } from '../support/daemon.ts';
import { serveAll } from '../support/served.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { DEFAULTS, differences, inside } from './site.ts';

const { AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest } =
  containerd.services.leases.v1;
const { Empty } = google.protobuf;

interface Seen {
  readonly call: string;
  readonly namespace: string | undefined;
  readonly leaseId: string | undefined;
}

/** Notes who calls. */
const noting = (content: ContentStore, seen: Seen[]): ContentStore =>
  new Proxy(content, {
    get: (store, name) => {
      const method: unknown = Reflect.get(store, name);
      if (typeof method !== 'function') return method;
      return (ctx: RequestContext, ...rest: readonly unknown[]): unknown => {
        seen.push({ call: String(name), namespace: ctx.namespace, leaseId: ctx.leaseId });
        return method.call(store, ctx, ...rest);
      };
    },
  });

/** A lease that is there: when it expires, and what was added to it by name. */
interface Lease {
  readonly labels: Labels;
  readonly resources: string[];
}

const leases = (made: Map<string, Lease>): Service => ({
  name: 'containerd.services.leases.v1.Leases',
  methods: {
    Create: unary(CreateRequest, CreateResponse, async (ctx, { id, labels }) => {
      expect(ctx.namespace).toBe('theirs');
      made.set(id, { labels: labelsFromWire(labels), resources: [] });
      return { lease: { id } };
    }),
    AddResource: unary(AddResourceRequest, Empty, async (_ctx, { id, resource }) => {
      made.get(id)?.resources.push(`${resource?.type} ${resource?.id}`);
      return {};
    }),
    Delete: unary(DeleteRequest, Empty, async (_ctx, { id }) => {
      made.delete(id);
      return {};
    }),
  },
});

test('with a containerd, layers go to its store under a lease that expires, and come from there', async () => {
  const [seen, made] = [new Array<Seen>(), new Map<string, Lease>()];
  await using folder = await temporaryFolder('containerd');
  await using theirs = await openInProcess('native');
  await using served = await serveAll([contentService(noting(theirs.content, seen)), leases(made)]);
  await using daemon = await Daemon.start({
    root: join(folder.path, 'root'),
    snapshotter: 'overlayfs',
    args: ['--containerd', served.socketPath],
  });
  const { snapshotter, comparer, applier, content } = daemon.client;
  const ctx = { ...background, namespace: 'theirs' };
  const mounts = await snapshotter.prepare(ctx, 'key', '', NO_LABELS);
  await inside(mounts, (root) => writeFile(join(root, 'file'), randomBytes(8 << 20)));

  const layer = await comparer.compare(ctx, [], mounts, { ...DEFAULTS, ref: 'ref' });
  await expect(content.info(ctx, layer.digest)).rejects.toMatchObject({ code: 'NotFound' });
  expect((await theirs.content.info(ctx, layer.digest)).size).toBe(layer.size);
  const [written] = seen.filter(({ call }) => call === 'writer');
  expect(written).toMatchObject({
    namespace: 'theirs',
    leaseId: expect.stringMatching(/^ballast-diff-/),
  });
  // The lease that it was written under has gone; a short one keeps it until its caller has labelled it.
  const [lease] = made.values();
  expect(made.size).toBe(1);
  expect(made.has(written?.leaseId ?? '')).toBe(false);
  expect(lease?.resources).toEqual([`content ${layer.digest}`]);
  const aheadMs = Date.parse(lease?.labels.get('containerd.io/gc.expire') ?? '') - Date.now();
  expect(aheadMs).toBeGreaterThan(60_000);
  expect(aheadMs).toBeLessThan(180_000);
  expect(await theirs.content.statuses(ctx, [])).toEqual([]);

  const copy = await snapshotter.prepare(ctx, 'copy', '', NO_LABELS);
  await applier.apply(ctx, layer, copy);
  expect(seen.at(-1)).toMatchObject({ call: 'read', namespace: 'theirs' });
  expect(await differences(mounts, copy)).toBe('');

  await theirs.content.delete(ctx, layer.digest);
  await expect(applier.apply(ctx, layer, copy)).rejects.toMatchObject({ code: 'NotFound' });
  const missing = [{ type: 'bind', source: '/nonexistent', options: ['ro', 'rbind'] }];
  await expect(comparer.compare(ctx, [], missing, DEFAULTS)).rejects.toMatchObject({
    code: 'NotFound',
  });
  expect(await theirs.content.statuses(ctx, [])).toEqual([]);
  expect(made.size, 'a Diff that failed leaves no lease').toBe(1);
});
