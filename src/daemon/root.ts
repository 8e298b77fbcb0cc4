import { randomUUID } from 'node:crypto';
import { access, constants, mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pathExists } from 'fs-extra/esm';
import { isOpError, messageOf, OpError } from '../base/errors.ts';
import type { MetadataStore } from '../metadata/metadata.ts';

/**
 * By kind of root; raised whenever an older ballast could no longer read what we write
 * (docs/storage-format.md). One that knows plugin sockets only must not take a standalone root for its.
 */
const FORMATS = { plugin: 2, standalone: 3 } as const satisfies Record<RootKind, number>;
const MARKER = 'ballast.json';

interface Marker {
  readonly format: number;
  /** Of the daemon's root, and the same in the roots of its snapshotters. */
  readonly uuid: string;
  readonly snapshotter?: string;
  readonly driver?: string;
  /** Whose stores are in it; two owners of one store would collect each other's data. */
  readonly kind?: 'standalone';
}

export type RootKind = 'plugin' | 'standalone';

export interface Root {
  readonly uuid: string;
  readonly format: number;
  readonly kind: RootKind;
  /** Whether a daemon has stored here before. */
  readonly used: boolean;
}

/**
 * Looks whether `root` is ours to use, without writing into it.
 * @throws OpError FailedPrecondition not writable, of the other kind, or written by a newer version;
 * DataLoss stores without their metadata
 */
export async function openRoot(root: string, kind: RootKind): Promise<Root> {
  try {
    await ensureFolder(root, 0o711);
    await access(root, constants.W_OK);
  } catch (error) {
    throw new OpError('FailedPrecondition', `root ${root} cannot be written: ${messageOf(error)}`);
  }
  const marker = await readMarker(root);
  if (marker !== undefined) {
    const found = marker.kind ?? 'plugin';
    if (found !== kind) {
      throw new OpError(
        'FailedPrecondition',
        `root ${root} holds the stores of a ${found} socket, which a ${kind} socket cannot share: choose another root`,
      );
    }
    return { ...marker, kind, used: true };
  }
  if ((await pathExists(join(root, 'content'))) && !(await pathExists(join(root, 'metadata')))) {
    throw new OpError(
      'DataLoss',
      `root ${root} holds content but neither ${MARKER} nor metadata: restore them from a copy, or move the root away to start empty`,
    );
  }
  return { uuid: randomUUID(), format: 0, kind, used: false };
}

/**
 * After the metadata store was made, before it is written to: from here on a root without it is a
 * damaged one, and older ballasts, which do not know all of our format, refuse it.
 */
export async function markRoot(root: string, { uuid, format, kind }: Root): Promise<void> {
  if (format >= FORMATS[kind]) return;
  const marker = { format: FORMATS[kind], uuid };
  await writeMarker(root, kind === 'standalone' ? { ...marker, kind } : marker);
}

export interface Claim {
  readonly root: string;
  readonly snapshotter: string;
  readonly driver: string;
  readonly uuid: string;
}

/**
 * Makes sure that a snapshotter's root is the one it has always had: not another daemon's, not another
 * driver's, and not the empty mount point of a disk that is missing today.
 * @throws OpError FailedPrecondition
 */
export async function claimSnapshotterRoot(claim: Claim, metadata: MetadataStore): Promise<void> {
  const { root, snapshotter, driver, uuid } = claim;
  const key = `snapshotter/${snapshotter}`;
  const refuse = (why: string): OpError =>
    new OpError('FailedPrecondition', `root ${root} of snapshotter ${snapshotter}: ${why}`);
  let marker: Marker | undefined;
  try {
    await ensureFolder(dirname(root), 0o700);
    await ensureFolder(root, 0o700);
    marker = await readMarker(root);
  } catch (error) {
    if (isOpError(error)) throw error;
    throw refuse(`cannot be written: ${messageOf(error)}`);
  }
  const claimed = (await Array.fromAsync(metadata.scan(key))).some(([found]) => found === key);
  if (marker === undefined && claimed) {
    throw refuse('was in use before but is empty now: is its disk mounted?');
  }
  if (marker !== undefined) {
    if (marker.uuid !== uuid)
      throw refuse(`belongs to another ballast (${marker.uuid}): use another root`);
    if (marker.snapshotter !== snapshotter)
      throw refuse(`belongs to the snapshotter ${marker.snapshotter}`);
    if (marker.driver !== driver)
      throw refuse(`was written by the driver ${marker.driver}, not ${driver}`);
    if (claimed) return;
  }
  try {
    await writeMarker(root, { format: FORMATS.plugin, uuid, snapshotter, driver });
  } catch (error) {
    throw refuse(`cannot be written: ${messageOf(error)}`);
  }
  await metadata.update((tx) => tx.put(key, { root, driver }));
}

async function readMarker(root: string): Promise<Marker | undefined> {
  const path = join(root, MARKER);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new OpError('FailedPrecondition', `${path} cannot be read: ${messageOf(error)}`);
  }
  const marker = parseMarker(text);
  if (marker === undefined)
    throw new OpError('DataLoss', `${path} is damaged: restore it from a copy`);
  const known = FORMATS[marker.kind ?? 'plugin'];
  if (marker.format > known) {
    throw new OpError(
      'FailedPrecondition',
      `${path}: written by a newer ballast (format ${marker.format}, this one knows ${known}): use that version`,
    );
  }
  return marker;
}

function parseMarker(text: string): Marker | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { format, uuid, snapshotter, driver, kind } = value as Partial<
    Record<keyof Marker, unknown>
  >;
  if (typeof format !== 'number' || typeof uuid !== 'string') return undefined;
  return {
    format,
    uuid,
    ...(typeof snapshotter === 'string' ? { snapshotter } : {}),
    ...(typeof driver === 'string' ? { driver } : {}),
    ...(kind === 'standalone' ? { kind } : {}),
  };
}

/** Whole or not at all, and on disk when it resolves. */
async function writeMarker(root: string, marker: Marker): Promise<void> {
  const path = join(root, MARKER);
  {
    await using file = await open(`${path}.new`, 'w', 0o600);
    await file.writeFile(`${JSON.stringify(marker)}\n`);
    await file.sync();
  }
  await rename(`${path}.new`, path);
  await using folder = await open(root);
  await folder.sync();
}

/** Not recursive: below /proc Node's recursive mkdir never ends, and a mistyped root should be noticed. */
async function ensureFolder(path: string, mode: number): Promise<void> {
  await mkdir(path, { mode }).catch((error: unknown) => {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  });
}
