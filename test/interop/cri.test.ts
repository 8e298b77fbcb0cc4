import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/run.ts';
import { RELEASES } from './containerd.ts';
import { at, Cri } from './cri.ts';
import { smallImage, type Image } from './images.ts';
import { Registry } from './registry.ts';
import { Site } from './site.ts';
import { expectBaseLine, layoutBlobs, listSnapshots, manifestDigest, usageOf } from './steps.ts';

const SNAPSHOTTER = 'ballast-overlay';
const [release] = RELEASES.filter(({ name }) => name === '2.x');
const MiB = 1 << 20;

test("Kubernetes' side of containerd 2.x pulls, runs, measures, knows all again after a restart of both daemons, and removes", async () => {
  if (release === undefined) throw new Error('no containerd 2.x');
  // As the units have it: the socket is there before either daemon.
  const site = await Site.create({ inherited: true });
  const before = await site.stored();
  const image = await smallImage();
  const registry = await Registry.start(site.folder);
  const small = await registry.push(image, 'small');
  const pause = await registry.push(await pauseImage(site, image), 'pause');
  await site.startContainerd(release, (printed) => config(printed, site, registry, pause));
  using cri = new Cri(join(site.folder, 'containerd.sock'));

  await expectPull(site, cri, image, small);
  const pod = new Pod(cri, `/${site.namespace}`);
  await pod.run();
  const first = await pod.startContainer('first', small);
  expect(await executed(cri, first, '/bin/cat', '/unusual/twin', '/etc/kept')).toBe(
    'one file of two names\nfrom the first layer\n',
  );
  const write = ['dd', 'if=/dev/zero', 'of=/written', 'bs=1M', 'count=1'];
  await executed(cri, first, '/bin/busybox', ...write);
  await expectFigures(site, cri, first);

  const known = await everything(cri);
  expect(known).toMatchObject({
    images: [{ repoTags: [pause], pinned: true }, { repoTags: [small] }],
    pods: [{ id: pod.id, state: 'SANDBOX_READY' }],
    containers: [{ id: first, podSandboxId: pod.id, state: 'CONTAINER_RUNNING' }],
  });
  await restart(site);
  expect(await everything(cri)).toEqual(known);
  expect(await executed(cri, first, '/bin/busybox', 'wc', '-c', '/written')).toBe(
    `${MiB} /written\n`,
  );
  const second = await pod.startContainer('second', small);

  for (const containerId of [first, second]) {
    await cri.runtime('StopContainer', { containerId });
    await cri.runtime('RemoveContainer', { containerId });
  }
  await pod.remove();
  for (const name of [small, pause]) await cri.images('RemoveImage', { image: { image: name } });
  expect(await everything(cri)).toEqual({ images: [], pods: [], containers: [] });
  expect(await listSnapshots(site, SNAPSHOTTER)).toEqual([]);
  await expectBaseLine(site, before);
});

/** What runs in a pod beside its containers, and only waits. */
async function pauseImage(
  site: Site,
  { layout, tag }: Image,
): Promise<Pick<Image, 'layout' | 'tag'>> {
  const copy = join(site.folder, 'pause');
  await run('cp', ['-r', layout, copy]);
  const command = ['--config.entrypoint', '/bin/sleep', '--config.cmd', '1000000'];
  await run('umoci', ['--log=error', 'config', '--image', `${copy}:${tag}`, ...command]);
  return { layout: copy, tag };
}

/** What the comments of the drop-in say of Kubernetes, and what keeps it on this machine. */
function config(printed: string, site: Site, registry: Registry, pause: string): string {
  const advice =
    /^#   (\[plugins\."io\.containerd\.cri\.v1\.images"\])\n#     (snapshotter = .+)$/m;
  const [, table = '', snapshotter = ''] = advice.exec(printed) ?? [];
  return `
${table}
  ${snapshotter}
  stats_collect_period = 1
  pinned_images = { sandbox = "${pause}" }
  registry = { config_path = "${registry.hosts}" }
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true # where root may not lower it
  cni = { conf_dir = "${site.folder}/cni" }
`;
}

/** By its names, in our store, and unpacked by our snapshotter. */
async function expectPull(site: Site, cri: Cri, image: Image, name: string): Promise<void> {
  const id = at(await cri.images('PullImage', { image: { image: name } }), 'imageRef');
  const digest = await manifestDigest(image.layout);
  const repoDigests = [name.replace(/:v1$/, `@${digest}`)];
  expect(await cri.images('ImageStatus', { image: { image: name } })).toMatchObject({
    image: { id, repoTags: [name], repoDigests },
  });
  expect((await site.stored()).blobs.toSorted()).toEqual(await layoutBlobs(image.layout));
  expect(await listSnapshots(site, SNAPSHOTTER)).toHaveLength(image.layers);
}

/** In the network of the machine, as there are no CNI plugins. */
class Pod {
  readonly #cri: Cri;
  readonly #config: object;
  id = '';

  constructor(cri: Cri, cgroupParent: string) {
    this.#cri = cri;
    this.#config = {
      metadata: { name: 'pod', uid: 'uid', namespace: 'default' },
      linux: { cgroupParent, securityContext: { namespaceOptions: { network: 'NODE' } } },
    };
  }

  async run(): Promise<void> {
    const answer = await this.#cri.runtime('RunPodSandbox', { config: this.#config });
    this.id = String(at(answer, 'podSandboxId'));
  }

  async startContainer(name: string, image: string): Promise<string> {
    const answer = await this.#cri.runtime('CreateContainer', {
      podSandboxId: this.id,
      config: { metadata: { name }, image: { image }, command: ['/bin/sleep', '1000000'] },
      sandboxConfig: this.#config,
    });
    const containerId = String(at(answer, 'containerId'));
    await this.#cri.runtime('StartContainer', { containerId });
    return containerId;
  }

  async remove(): Promise<void> {
    await this.#cri.runtime('StopPodSandbox', { podSandboxId: this.id });
    await this.#cri.runtime('RemovePodSandbox', { podSandboxId: this.id });
  }
}

async function executed(
  cri: Cri,
  containerId: string,
  ...cmd: readonly string[]
): Promise<unknown> {
  const answer = await cri.runtime('ExecSync', { containerId, cmd });
  expect(answer).toMatchObject({ exitCode: 0 });
  return at(answer, 'stdout');
}

/** The container's layer and the whole file system are as large as the snapshotter says, and where it says. */
async function expectFigures(site: Site, cri: Cri, container: string): Promise<void> {
  const fsId = { mountpoint: join(site.root, 'snapshotters', SNAPSHOTTER) };
  const figures = (bytes: number, inodes: number) => ({
    fsId,
    usedBytes: { value: bytes },
    inodesUsed: { value: inodes },
  });
  const listed = await listSnapshots(site, SNAPSHOTTER);
  const usages = await Promise.all(listed.map(({ key }) => usageOf(site, SNAPSHOTTER, key)));
  const own = await usageOf(site, SNAPSHOTTER, container);
  expect(own.bytes).toBeGreaterThanOrEqual(MiB);
  const sum = (name: 'bytes' | 'inodes') => usages.reduce((total, each) => total + each[name], 0);
  await untilCollected(async () => {
    const stats = {
      attributes: { id: container },
      writableLayer: figures(own.bytes, own.inodes),
    };
    expect(await cri.runtime('ContainerStats', { containerId: container })).toMatchObject({
      stats,
    });
    expect(await cri.runtime('ListContainerStats')).toMatchObject({ stats: [stats] });
    const imageFilesystems = [figures(sum('bytes'), sum('inodes'))];
    expect(await cri.images('ImageFsInfo')).toMatchObject({ imageFilesystems });
  });
}

/** containerd collects figures each second, and tells nobody when it has: asked until they are right. */
async function untilCollected(expectation: () => Promise<void>): Promise<void> {
  const patience = AbortSignal.timeout(10_000);
  for (;;) {
    try {
      return await expectation();
    } catch (error) {
      if (patience.aborted) throw error;
    }
  }
}

/** What Kubernetes' side lists, which it does in no order. */
async function everything(cri: Cri): Promise<unknown> {
  return {
    images: sorted(at(await cri.images('ListImages'), 'images'), 'repoTags'),
    pods: sorted(at(await cri.runtime('ListPodSandbox'), 'items'), 'id'),
    containers: sorted(at(await cri.runtime('ListContainers'), 'containers'), 'id'),
  };
}

function sorted(list: unknown, by: string): readonly unknown[] {
  const items: readonly unknown[] = Array.isArray(list) ? list : [];
  return items.toSorted((one, other) => (String(at(one, by)) < String(at(other, by)) ? -1 : 1));
}

/** In the order of the units: containerd starts after ballast, and ends before it. */
async function restart(site: Site): Promise<void> {
  await site.containerd.stopDaemon();
  await site.ballast.stop('SIGTERM');
  await site.startBallast();
  await site.containerd.startDaemon();
}
