// `ballast du` says what du(1) says, whatever was written, removed, killed and started again.
import { appendFile, link, mkdir, open, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { isOpError } from '../../src/base/errors.ts';
import type { DiskUsage } from '../../src/disk/disk.ts';
import { Calls } from '../../src/grpc/proxy/calls.ts';
import { GcProxy } from '../../src/grpc/proxy/gc.ts';
import type { Client } from '../support/client.ts';
import { Daemon } from '../support/daemon.ts';
import { emptied, expectTruth } from '../support/disk-use.ts';
import { ownDirectory, performMounts } from '../support/mounts.ts';
import { bytesOf, Random, testSeed } from '../support/random.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';
import { COLLECT, COLLECT_NOTHING, inside } from './client.ts';

const DRIVERS = { overlayfs: 'overlay', native: 'native' } as const;

const KEPT = new Map([['containerd.io/gc.root', 'by the test']]);
const SIZES = [0, 1, 100, 4096, 4097, 65_536, 65_537, 200_000, 3_000_000];
const ROUNDS = 120;

const here = inside('here');

test.for(Object.entries(DRIVERS))(
  '%s: the total is the disk, after writes, removals and restarts',
  async ([snapshotter, driver]) => {
    await using folder = await temporaryFolder('du');
    const root = join(folder.path, 'root');
    const config = join(folder.path, 'ballast.toml');
    const socket = join(folder.path, 'alone.sock');
    const configure = (gc: string): Promise<void> =>
      writeFile(
        config,
        `root = "${root}"
[standalone]
socket = "${socket}"
[gc]
${gc}
[snapshotter.${snapshotter}]
driver = "${driver}"
`,
      );
    await configure(COLLECT_NOTHING);
    const command = `${join(repository, 'bin/ballast')} serve --config ${config}`;
    const seed = testSeed();
    process.stdout.write(`${snapshotter}: BALLAST_SEED=${seed}\n`);
    let daemon = await Daemon.start({ root, socket, snapshotter, command });
    try {
      const load = new Load(new Random(seed), daemon.client);
      for (let round = 0; round < ROUNDS; round++) await load.step();
      await load.blobsTogether(12);
      const full = await expectTruth(socket);
      for (const type of ['content', 'ingests', `snapshots/${snapshotter}`]) {
        expect(bytesIn(full, type), type).toBeGreaterThan(0);
      }

      await configure(COLLECT);
      daemon = await daemon.restart('SIGTERM');
      using calls = new Calls(socket);
      await new GcProxy(calls).run(here);
      await daemon.client.snapshotter.cleanup(here);
      await emptied(join(root, 'content/trash'));
      const swept = await expectTruth(socket);
      expect(swept.total).toBeLessThan(full.total);
      expect(bytesIn(swept, 'trash')).toBe(0);
      for (const { unreferenced } of swept.parts) expect(unreferenced).toBe(0);

      for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
        daemon = await daemon.restart(signal);
        const again = await expectTruth(socket);
        expect(again.snapshots).toEqual(swept.snapshots);
        expect(bytesIn(again, 'content')).toBe(bytesIn(swept, 'content'));
      }
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
  },
);

const bytesIn = ({ parts }: DiskUsage, type: string): number =>
  parts.find((part) => part.type === type)?.bytes ?? 0;

/** One client that does what a seed says. */
class Load {
  readonly #random: Random;
  readonly #client: Client;
  readonly #committed: string[] = [''];
  readonly #active: string[] = [];
  #count = 0;

  constructor(random: Random, client: Client) {
    this.#random = random;
    this.#client = client;
  }

  async step(): Promise<void> {
    const steps = [
      () => this.#blob(),
      () => this.#ingest(),
      () => this.#prepare(),
      () => this.#write(),
      () => this.#write(),
      () => this.#commit(),
      () => this.#view(),
      () => this.#remove(),
    ];
    await this.#random.pick(steps)?.();
  }

  /** Their pieces lie between each other on the disk. */
  async blobsTogether(count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, () => this.#blob(2_000_000)));
  }

  #labels(): ReadonlyMap<string, string> {
    return this.#random.chance(0.5) ? KEPT : new Map();
  }
  #name(): string {
    return `n${this.#count++}`;
  }

  async #blob(size = this.#random.pick(SIZES) ?? 0): Promise<void> {
    await using writer = await this.#client.content.writer(here, this.#name(), {});
    const bytes = bytesOf(this.#random.below(2 ** 31), size);
    for (let at = 0; at < size; at += 300_000) {
      await writer.write(at, Uint8Array.from(bytes.subarray(at, at + 300_000)));
    }
    await writer.commit(this.#labels()).catch((error: unknown) => {
      // Those of a few bytes may be the same.
      if (!isOpError(error, 'AlreadyExists')) throw error;
    });
  }

  /** Left behind. */
  async #ingest(): Promise<void> {
    await using writer = await this.#client.content.writer(here, this.#name(), {});
    await writer.write(0, Uint8Array.from(bytesOf(this.#count, this.#random.pick(SIZES) ?? 0)));
  }

  async #prepare(): Promise<void> {
    const key = this.#name();
    const parent = this.#random.pick(this.#committed) ?? '';
    await this.#client.snapshotter.prepare(here, key, parent, this.#labels());
    this.#active.push(key);
  }

  /** Straight into the directory, or through a mount. */
  async #write(): Promise<void> {
    const key = this.#random.pick(this.#active);
    if (key === undefined) return;
    const mounts = await this.#client.snapshotter.mounts(here, key);
    if (this.#random.chance(0.7)) return this.#fill(ownDirectory(mounts));
    await using mounted = await performMounts(mounts);
    await this.#fill(mounted.path);
  }

  async #fill(folder: string): Promise<void> {
    const size = this.#random.pick(SIZES) ?? 0;
    const at = join(folder, this.#name());
    await mkdir(join(at, 'deep'), { recursive: true });
    await writeFile(join(at, 'file'), bytesOf(this.#count, size));
    await link(join(at, 'file'), join(at, 'deep/twin'));
    await symlink('x'.repeat(this.#random.below(200) + 1), join(at, 'link'));
    if (this.#random.chance(0.3)) {
      await using sparse = await open(join(at, 'sparse'), 'w');
      for (let hole = 0; hole < 40; hole++) await sparse.write('x', hole * 100_000);
    }
    if (this.#random.chance(0.5)) await appendFile(join(at, 'file'), 'more');
  }

  async #commit(): Promise<void> {
    const [key] = this.#active.splice(0, 1);
    if (key === undefined) return;
    const name = this.#name();
    await this.#client.snapshotter.commit(here, name, key, this.#labels(), '');
    this.#committed.push(name);
  }

  async #view(): Promise<void> {
    const parent = this.#random.pick(this.#committed) ?? '';
    await this.#client.snapshotter.view(here, this.#name(), parent, this.#labels());
  }

  async #remove(): Promise<void> {
    const [key] = this.#active.splice(this.#random.below(this.#active.length + 1), 1);
    if (key !== undefined) await this.#client.snapshotter.remove(here, key);
  }
}
