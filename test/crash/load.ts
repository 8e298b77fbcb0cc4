import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { background } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import type { Writer } from '../../src/content/content.ts';
import type { Client } from '../support/client.ts';
import type { DriverName } from '../support/daemon.ts';
import { ownDirectory } from '../support/mounts.ts';
import { bytesOf, type Random } from '../support/random.ts';
import type {
  BlobState,
  FileContent,
  Files,
  IngestState,
  Item,
  Journal,
  SnapshotState,
} from './journal.ts';

/** How many snapshots and blobs an actor lets live. */
const SNAPSHOTS_KEPT = 7;
const BLOBS_KEPT = 4;
const MESSAGE_BYTES = 512 << 10;

/** Written anew in every layer; the others have names of their own. */
export const IN_EVERY_LAYER = 'in-every-layer';

export const NO_FILES: Files = new Map();

interface LoadOptions {
  readonly client: Client;
  readonly journal: Journal;
  readonly random: Random;
  readonly driver: DriverName;
  /** Half of them make snapshots, half blobs. */
  readonly actors: number;
}

/**
 * Clients at work, each on snapshots and blobs of its own (all children of shared layers), one request
 * at a time. Requests that fail before `death` was announced are failures of the daemon.
 */
export class Load {
  readonly #options: LoadOptions;
  readonly #actors: Promise<void>[];
  readonly #failures: unknown[] = [];
  readonly #progress = new EventEmitter();
  #stopping = false;
  #dying = false;
  requests = 0;
  /** What failed after death was announced. */
  readonly refusals: unknown[] = [];

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#actors = Array.from({ length: options.actors }, (_, number) => this.#act(number));
  }

  /** From now on requests may fail; `keepGoing` until one does. */
  expectDeath(options?: { readonly keepGoing: boolean }): void {
    this.#dying = true;
    this.#stopping = options?.keepGoing !== true;
  }

  /** Resolves when this many requests were answered. */
  async reached(requests: number): Promise<void> {
    while (this.requests < requests && !this.#stopping) await once(this.#progress, 'request');
  }

  /** Resolves when a request has failed. */
  async failed(): Promise<void> {
    while (!this.#stopping) await once(this.#progress, 'request');
  }

  /** Lets requests under way end. @throws what failed without a crash. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#actors);
    if (this.#failures.length > 0) {
      throw new AggregateError(
        this.#failures,
        `requests failed without a crash: ${this.#failures.map(String).join('; ')}`,
      );
    }
  }

  async #act(number: number): Promise<void> {
    const actor =
      number % 2 === 0
        ? new SnapshotActor(this.#options, number)
        : new BlobActor(this.#options, number);
    while (!this.#stopping) {
      try {
        await actor.step();
        this.requests++;
        this.#progress.emit('request');
      } catch (error) {
        (this.#dying ? this.refusals : this.#failures).push(error);
        this.#stopping = true;
        this.#progress.emit('request');
      }
    }
    await actor.leave();
  }
}

class SnapshotActor {
  readonly #number: number;
  readonly #options: LoadOptions;

  constructor(options: LoadOptions, number: number) {
    this.#options = options;
    this.#number = number;
  }

  async leave(): Promise<void> {}

  #living(): readonly { item: Item<SnapshotState>; state: SnapshotState }[] {
    return [...this.#options.journal.snapshots]
      .filter((item) => item.actor === this.#number)
      .flatMap((item) => (item.state ? [{ item, state: item.state }] : []));
  }

  async step(): Promise<void> {
    const { random, client } = this.#options;
    const living = this.#living();
    const chosen = random.pick(living);
    if (!chosen || (living.length < SNAPSHOTS_KEPT && random.chance(0.35))) return this.#make();
    const { item, state } = chosen;
    const parents = new Set(living.map((other) => other.state.parent));
    if (state.kind === 'active' && random.chance(0.3)) return this.#writeFiles(item, state);
    if (state.kind === 'active' && random.chance(0.5)) return this.#commit(item, state);
    if (random.chance(0.15)) return this.#label(item, state);
    if (random.chance(0.1)) {
      await client.snapshotter.usage(background, state.name);
      return;
    }
    if (!parents.has(state.name) && (living.length >= SNAPSHOTS_KEPT || random.chance(0.2))) {
      await item.change(undefined, () => client.snapshotter.remove(background, state.name));
    }
  }

  async #make(): Promise<void> {
    const { random, client, journal } = this.#options;
    const parents = [...journal.snapshots]
      .filter((item) => item.actor === this.#number || item.actor < 0)
      .flatMap((item) => (item.state?.kind === 'committed' ? [item.state] : []));
    const parent = random.chance(0.2) ? undefined : random.pick(parents);
    const item = journal.newSnapshot(this.#number);
    const kind = random.chance(0.25) ? 'view' : 'active';
    const state: SnapshotState = {
      kind,
      name: `key ${this.#number}/../${journal.serial()}`,
      parent: parent?.name ?? '',
      labels: new Map([['proof/made', String(journal.serial())]]),
      own: NO_FILES,
      inherited: parent ? new Map([...parent.inherited, ...parent.own]) : NO_FILES,
    };
    const verb = kind === 'view' ? 'view' : 'prepare';
    await item.change(state, () =>
      client.snapshotter[verb](background, state.name, state.parent, state.labels),
    );
  }

  async #writeFiles(item: Item<SnapshotState>, state: SnapshotState): Promise<void> {
    const { client, journal, random } = this.#options;
    const mounts = await client.snapshotter.mounts(background, state.name);
    const written = await writeFiles(ownDirectory(mounts), journal, random);
    item.note({ ...state, own: new Map([...state.own, ...written]) });
  }

  async #commit(item: Item<SnapshotState>, state: SnapshotState): Promise<void> {
    const { client, journal } = this.#options;
    const name = `layer ${this.#number}/${journal.serial()}`;
    const labels = new Map([['proof/committed', name]]);
    const committed: SnapshotState = { ...state, kind: 'committed', name, labels };
    await item.change(committed, () =>
      client.snapshotter.commit(background, name, state.name, labels, ''),
    );
    const usage = await client.snapshotter.usage(background, name);
    item.note({ ...committed, usage });
  }

  async #label(item: Item<SnapshotState>, state: SnapshotState): Promise<void> {
    const labels = new Map([['proof/updated', String(this.#options.journal.serial())]]);
    await item.change({ ...state, labels }, () =>
      this.#options.client.snapshotter.update(background, { name: state.name, labels }, []),
    );
  }
}

/** Writes some files, among them one that every layer writes anew, as a client that unpacks would. */
async function writeFiles(directory: string, journal: Journal, random: Random): Promise<Files> {
  const files = new Map<string, FileContent>();
  const names = [IN_EVERY_LAYER, `etc/${journal.serial()}`, `usr/lib/${journal.serial()}`];
  for (const name of names.slice(random.below(2))) {
    const content = {
      seed: journal.serial(),
      size: 1 + random.below(random.chance(0.1) ? 300_000 : 6000),
    };
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), bytesOf(content.seed, content.size));
    files.set(name, content);
  }
  return files;
}

/** Layers that nobody removes, so that children of one parent come from everywhere. */
export async function makeBaseLayers(
  client: Client,
  journal: Journal,
  random: Random,
): Promise<void> {
  let parent = '';
  let inherited: Files = NO_FILES;
  for (const name of ['base', 'base upon base']) {
    const item = journal.newSnapshot(-1);
    const state = { name: `${name} key`, parent, labels: new Map(), own: NO_FILES, inherited };
    const mounts = await item.change({ ...state, kind: 'active' }, () =>
      client.snapshotter.prepare(background, state.name, parent, new Map()),
    );
    const own = await writeFiles(ownDirectory(mounts), journal, random);
    await item.change({ ...state, kind: 'committed', name, own }, () =>
      client.snapshotter.commit(background, name, state.name, new Map(), ''),
    );
    parent = name;
    inherited = new Map([...inherited, ...own]);
  }
}

class BlobActor {
  readonly #number: number;
  readonly #options: LoadOptions;
  #writer: { writer: Writer; item: Item<IngestState | BlobState> } | undefined;

  constructor(options: LoadOptions, number: number) {
    this.#options = options;
    this.#number = number;
  }

  /** Frees the ref, as a client whose connection ends does. */
  async leave(): Promise<void> {
    const { writer } = this.#writer ?? {};
    this.#writer = undefined;
    try {
      await writer?.[Symbol.asyncDispose]();
    } catch {
      // The daemon is dead: nothing holds the ref.
    }
  }

  async step(): Promise<void> {
    const { random, journal, client } = this.#options;
    const living = [...journal.blobs].filter((item) => item.actor === this.#number && item.state);
    const item = living.length < BLOBS_KEPT && random.chance(0.4) ? undefined : random.pick(living);
    if (!item) return this.#begin();
    const state = item.state;
    if (state?.kind === 'ingest') return this.#continue(item, state);
    if (state?.kind !== 'blob') return;
    if (random.chance(0.3)) {
      const labels = new Map([['proof/updated', String(journal.serial())]]);
      const change = { digest: state.digest, labels };
      await item.change({ ...state, labels }, () => client.content.update(background, change, []));
    } else if (living.length >= BLOBS_KEPT || random.chance(0.2)) {
      await item.change(undefined, () => client.content.delete(background, state.digest));
    } else await client.content.info(background, state.digest);
  }

  async #begin(): Promise<void> {
    const { random, journal } = this.#options;
    const size = random.chance(0.6) ? 1 + random.below(8192) : 1 + random.below(3 << 20);
    const content = { seed: journal.serial(), size };
    const ref = `ref ${this.#number}/../${journal.serial()}`;
    const item = journal.newBlob(this.#number);
    await this.#open(item, { kind: 'ingest', ref, held: 0, content });
  }

  async #open(item: Item<IngestState | BlobState>, state: IngestState): Promise<Writer> {
    if (this.#writer?.item === item) return this.#writer.writer;
    await this.leave();
    const { client } = this.#options;
    const writer = await item.change(state, () =>
      client.content.writer(background, state.ref, { total: state.content.size }),
    );
    this.#writer = { writer, item };
    if (writer.status().offset !== state.held) {
      throw new Error(
        `${state.ref} holds ${writer.status().offset} bytes, ${state.held} were acknowledged`,
      );
    }
    return writer;
  }

  async #continue(item: Item<IngestState | BlobState>, state: IngestState): Promise<void> {
    const { random, client } = this.#options;
    if (state.content.size > MESSAGE_BYTES && random.chance(0.1)) return this.leave();
    if (random.chance(0.05)) {
      await this.leave();
      await item.change(undefined, () => client.content.abort(background, state.ref));
      return;
    }
    const writer = await this.#open(item, state);
    const bytes = bytesOf(state.content.seed, state.content.size);
    if (state.held < bytes.length) {
      const data = bytes.subarray(state.held, state.held + MESSAGE_BYTES);
      const held = state.held + data.length;
      await item.change({ ...state, held }, () => writer.write(state.held, data));
      return;
    }
    const digest = digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));
    const labels = new Map([['proof/committed', state.ref]]);
    await writer.announce({ expected: digest, total: bytes.length });
    await item.change({ kind: 'blob', digest, labels, content: state.content }, () =>
      writer.commit(labels),
    );
    await this.leave();
  }
}
