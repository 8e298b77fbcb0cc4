import { OpError, SyncFailure, type ErrorCode } from '../../base/errors.ts';
import type { Algorithm } from '../../base/digest.ts';
import type {
  DirectoryBeneath,
  DirectoryOfSubvolumes,
  DirectoryToMake,
  HexDigests,
  MeasuredSubvolume,
  MountToMake,
  PartRule,
  SubvolumeLimit,
  SubvolumeSize,
  SubvolumeToMake,
  TreeSize,
} from '../platform.ts';
import type { CancelFlag } from './cancellation.ts';
import type { OpenedFile, Progress } from './hashed-files.ts';
import type { Made } from './make-directories.ts';
import type { Placed, PlaceRequest } from './place-blobs.ts';
import type { Sealed, SealRequest } from './seal-trees.ts';
import type { MadeSubvolume } from './subvolumes/make-subvolumes.ts';
import type {
  MeasureSubvolumeRequest,
  MeasureWrittenRequest,
} from './subvolumes/measure-subvolume.ts';

/** Every job a thread can run: what goes in, what comes out. All of it survives structured cloning. */
export interface JobMap {
  makeDirectories: { in: readonly (readonly DirectoryToMake[])[]; out: readonly Made[] };
  copyTree: { in: { from: string; to: string; cancel: CancelFlag }; out: void };
  measureTree: { in: { path: string; cancel: CancelFlag }; out: TreeSize };
  measureParts: {
    in: {
      root: string;
      part: string;
      rules: ReadonlyMap<string, PartRule>;
      cancel: CancelFlag;
    };
    out: ReadonlyMap<string, number>;
  };
  removeTrees: { in: { paths: readonly string[]; cancel: CancelFlag }; out: void };
  sealTrees: { in: SealRequest; out: readonly Sealed[] };
  placeBlobs: { in: PlaceRequest; out: readonly Placed[] };
  makeSubvolumes: { in: readonly SubvolumeToMake[]; out: readonly MadeSubvolume[] };
  measureSubvolume: { in: MeasureSubvolumeRequest; out: SubvolumeSize };
  measureWritten: { in: MeasureWrittenRequest; out: MeasuredSubvolume };
  limitSubvolume: { in: { path: string; limit: SubvolumeLimit }; out: boolean };
  removeSubvolumes: { in: { paths: readonly string[]; cancel: CancelFlag }; out: void };
  listSubvolumes: { in: string; out: readonly DirectoryOfSubvolumes[] };
  enableQuotas: { in: string; out: void };
  makeMount: { in: { folder: string; mount: MountToMake; point: string }; out: void };
  listMounts: { in: string; out: ReadonlySet<string> };
  takeDownMounts: { in: string; out: void };
  makeDirectoryBeneath: { in: DirectoryBeneath; out: void };
  openFile: { in: { path: string; algorithms: readonly Algorithm[] }; out: OpenedFile };
  appendToFile: { in: { id: number; data: Uint8Array }; out: HexDigests };
  truncateFile: { in: { id: number }; out: HexDigests };
  addFileAlgorithm: { in: { id: number; algorithm: Algorithm }; out: Progress };
  readFileOn: { in: { id: number }; out: Progress };
  closeFile: { in: { id: number }; out: void };
}

/** Jobs by name, as JobMap has them: what goes in, what comes out. */
export type Jobs<Map> = {
  readonly [Name in keyof Map]: { readonly in: unknown; readonly out: unknown };
};

export type JobName = keyof JobMap;

/** One message to a thread. */
export type JobRequest<Map extends Jobs<Map> = JobMap> = {
  [Name in keyof Map]: { readonly name: Name; readonly input: Map[Name]['in'] };
}[keyof Map];

export type JobResult<Out> = { readonly output: Out } | { readonly error: EncodedError };

/** What a thread answers: errors as values. */
export async function resultOf<Out>(job: () => Out | Promise<Out>): Promise<JobResult<Out>> {
  try {
    return { output: await job() };
  } catch (error) {
    return { error: encodeError(error) };
  }
}

/** An error as a message: structured cloning keeps neither its class nor its fields. */
export interface EncodedError {
  readonly kind: 'operation' | 'sync' | 'defect';
  readonly code: ErrorCode;
  readonly message: string;
  readonly stack: string | undefined;
}

export function encodeError(error: unknown): EncodedError {
  const stack = error instanceof Error ? error.stack : undefined;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof OpError) return { kind: 'operation', code: error.code, message, stack };
  const kind = error instanceof SyncFailure ? 'sync' : 'defect';
  return { kind, code: 'Internal', message, stack };
}

export function decodeError(encoded: EncodedError): Error {
  const error = fromEncoded(encoded);
  if (encoded.stack !== undefined) error.stack = encoded.stack;
  return error;
}

function fromEncoded({ kind, code, message }: EncodedError): Error {
  switch (kind) {
    case 'operation':
      return new OpError(code, message);
    case 'sync':
      return new SyncFailure(message);
    case 'defect':
      return new Error(message);
  }
}
