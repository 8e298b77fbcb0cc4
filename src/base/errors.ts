/** The error codes of the field: containerd's errdefs, which are gRPC's codes. */
export const ERROR_CODES = [
  'Canceled',
  'Unknown',
  'InvalidArgument',
  'DeadlineExceeded',
  'NotFound',
  'AlreadyExists',
  'PermissionDenied',
  'ResourceExhausted',
  'FailedPrecondition',
  'Aborted',
  'OutOfRange',
  'Unimplemented',
  'Internal',
  'Unavailable',
  'DataLoss',
  'Unauthenticated',
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

/**
 * An expected failure that a caller can act on. The message names the thing, the value and, where
 * there is one, what to do. Everything else that is thrown is a defect of ours.
 */
export class OpError extends Error {
  override readonly name = 'OpError';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

export const isOpError = (error: unknown, code?: ErrorCode): error is OpError =>
  error instanceof OpError && (code === undefined || error.code === code);

/** Quotes a value from outside for a message; long ones are cut so that no answer grows with its request. */
export function quote(value: string): string {
  const text = JSON.stringify(value);
  return text.length <= 200 ? text : `${text.slice(0, 160)}…" (${value.length} characters)`;
}

export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** containerd's clients look for this ending and take it off again. */
export const notFound = (what: string): OpError => new OpError('NotFound', `${what}: not found`);
export const alreadyExists = (what: string): OpError =>
  new OpError('AlreadyExists', `${what}: already exists`);

/**
 * A sync failed for another reason than a full disk: what the disk holds is unknown, and a later sync
 * may succeed without having written it. Nobody catches this but the daemon, which stops.
 */
export class SyncFailure extends Error {
  override readonly name = 'SyncFailure';
}
