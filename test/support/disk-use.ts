import { watch } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { expect } from 'vitest';
import { background } from '../../src/base/context.ts';
import type { DiskUsage } from '../../src/disk/disk.ts';
import { Calls } from '../../src/grpc/proxy/calls.ts';
import { DiskProxy } from '../../src/grpc/proxy/disk.ts';
import { PATIENCE_MS, within } from './patience.ts';
import { run } from './run.ts';

/** What du(1) counts below these paths together, in bytes. */
export async function allocatedIn(paths: readonly string[]): Promise<number> {
  const lines = (await run('du', ['-scD', '--block-size=1', ...paths])).trim().split('\n');
  return Number(lines.at(-1)?.split('\t')[0]);
}

export async function usageOf(socket: string): Promise<DiskUsage> {
  using calls = new Calls(socket);
  return await new DiskProxy(calls).usage(background, { verbose: true });
}

/** Metadata are rewritten in the background now and then: what counts is a usage between two equal looks. */
export async function quietUsage(socket: string): Promise<DiskUsage & { readonly onDisk: number }> {
  for (let tries = 1; ; tries++) {
    const { roots } = await usageOf(socket);
    const before = await allocatedIn(roots);
    const usage = await usageOf(socket);
    const onDisk = await allocatedIn(roots);
    if (before === onDisk) return { ...usage, onDisk };
    if (tries === 50) throw new Error(`${roots.join(', ')}: the disk does not come to rest`);
  }
}

/** The total is the disk's to the byte, and every sum is the sum of its parts. */
export async function expectTruth(socket: string): Promise<DiskUsage> {
  const usage = await quietUsage(socket);
  const { parts, total, onDisk, snapshots } = usage;
  expect(total).toBe(onDisk);
  expect(total).toBe(parts.reduce((sum, { bytes }) => sum + bytes, 0));
  for (const { type, bytes, unique, shared, unreferenced } of parts) {
    if (['metadata', 'trash', 'folders'].includes(type)) continue;
    expect(unique + shared + unreferenced, type).toBe(bytes);
    if (!type.startsWith('snapshots/')) continue;
    const own = snapshots.filter((snapshot) => snapshot.type === type);
    expect(
      own.reduce((sum, snapshot) => sum + snapshot.bytes, 0),
      type,
    ).toBe(bytes);
  }
  return usage;
}

/** Resolves when nothing is in the folder any more. */
export async function emptied(folder: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const watcher = watch(folder, () => look());
  const look = (): void =>
    void readdir(folder).then((names) => {
      if (names.length === 0) resolve();
    });
  try {
    look();
    await within(PATIENCE_MS, `the end of all in ${folder}`, promise);
  } finally {
    watcher.close();
  }
}
