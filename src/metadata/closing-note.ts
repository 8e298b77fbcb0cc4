import { open, readdir, readFile, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';

/** The store's files that hold records; level's lock and its own log are not among them. */
const HOLDS_RECORDS = /^(\d+\.(log|ldb|sst)|CURRENT|MANIFEST-\d+)$/;

const noteOf = (store: string): string => `${store}.closed`;

/**
 * A daemon that ended in order leaves a note of its store's files. level drops what is damaged at the
 * end of its log as if a crash had torn it, and what is left adds up; the note tells the difference.
 */
export async function leaveNote(store: string): Promise<void> {
  const path = noteOf(store);
  {
    await using file = await open(`${path}.new`, 'w', 0o600);
    await file.writeFile(await checksums(store));
    await file.sync();
  }
  await rename(`${path}.new`, path);
}

/**
 * Compares the files with the note, before level has touched them.
 * @returns how they differ, or undefined when they don't, or when the daemon did not end in order
 */
export async function differsFromNote(store: string): Promise<string | undefined> {
  let note: string;
  try {
    note = await readFile(noteOf(store), 'utf8');
  } catch {
    return undefined;
  }
  const lines = new Set((await checksums(store)).split('\n'));
  const differing = note.split('\n').filter((line) => !lines.has(line));
  if (differing.length === 0) return undefined;
  const names = differing.map((line) => line.split(' ', 1)[0]);
  return `${names.join(', ')} changed since the last daemon ended`;
}

/** The note is gone for good when this resolves, so that it can't speak about what is written next. */
export async function removeNote(store: string): Promise<void> {
  try {
    await unlink(noteOf(store));
  } catch {
    return;
  }
  await using folder = await open(dirname(store));
  await folder.sync();
}

/** A line for each file: name, size, CRC-32. */
async function checksums(store: string): Promise<string> {
  const entries = await readdir(store).catch(() => []);
  const names = entries.filter((name) => HOLDS_RECORDS.test(name)).toSorted();
  const lines: string[] = [];
  for (const name of names) {
    const bytes = await readFile(join(store, name));
    lines.push(`${name} ${bytes.length} ${crc32(bytes)}`);
  }
  return lines.join('\n');
}
