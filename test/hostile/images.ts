import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../support/run.ts';
import { shared } from '../support/slow-disk.ts';
import { repository } from '../support/temporary.ts';

const factory = join(shared, 'images');

/** Why tests over the nasty and hostile images can't run here, or undefined when they can. */
export const imagesMissing = existsSync(join(factory, 'make.py'))
  ? undefined
  : `${factory} is not there: layers are NOT tested against the nasty and hostile images (SHARED names the folder)`;

/** What a test demands of a layer engine for one image. */
export interface ImageCase {
  readonly name: string;
  /** Nasty ones are legal. */
  readonly kind: 'nasty' | 'hostile';
  readonly verdict: 'tree' | 'tree-or-refused' | 'refused' | 'confined' | 'confined-or-refused';
  readonly layers: readonly {
    readonly mediaType: string;
    readonly digest: string;
    readonly size: number;
    readonly chainID: string;
  }[];
}

/** What an entry means. Bytes of names and values are latin1. */
export interface Meaning {
  readonly path: string;
  readonly type: string;
  readonly link: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Nanoseconds since 1970. */
  readonly mtime: string;
  readonly device: readonly [number, number];
  readonly xattrs: Readonly<Record<string, string>>;
  readonly size: number;
  readonly sha256: string;
}

/**
 * Makes images below a folder, as OCI layouts NAME/ or archives NAME.tar: those whose names match, * being a
 * wildcard.
 */
export async function makeImages(
  folder: string,
  only = '*',
  form: 'layout' | 'archive' = 'layout',
): Promise<readonly ImageCase[]> {
  await run('python3', [join(factory, 'make.py'), folder, '--only', only, '--form', form]);
  return JSON.parse(await readFile(join(folder, 'cases.json'), 'utf8'));
}

/** By the name of each legal case, for each layer: what its entries mean, known apart from its bytes. */
export async function meanings(): Promise<ReadonlyMap<string, readonly (readonly Meaning[])[]>> {
  const script = join(repository, 'test/hostile/meanings.py');
  const output = await run('python3', [script, factory]);
  return new Map(
    Object.entries(JSON.parse(output) as Record<string, readonly (readonly Meaning[])[]>),
  );
}

export const blobPath = (folder: string, name: string, digest: string): string =>
  join(folder, name, 'blobs', digest.replace(':', '/'));
