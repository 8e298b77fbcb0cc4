import type { ErrorCode } from '../base/errors.ts';
import { messageOf, OpError } from '../base/errors.ts';

/** The only place where our codes and gRPC's numbers meet; the compiler keeps it complete. */
const STATUS = {
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const satisfies Record<ErrorCode, number>;

const CODES = new Map<number, ErrorCode>();
for (const code of Object.keys(STATUS).filter(isErrorCode)) CODES.set(STATUS[code], code);

function isErrorCode(key: string): key is ErrorCode {
  return Object.hasOwn(STATUS, key);
}

/** A call's end as gRPC puts it; 0 is success. Never with details: clients decode those as errors. */
export interface CallStatus {
  readonly code: number;
  readonly message: string;
}

export const OK: CallStatus = { code: 0, message: 'OK' };

/** Characters. A message travels in a header, percent-encoded; whatever came in must not come back whole. */
const MESSAGE_MAX = 1024;

export const statusNumber = (code: ErrorCode): number => STATUS[code];

/**
 * The status for what a handler threw. Anything that is neither an OpError nor the AbortError of a
 * cancelled request is a defect of ours: Internal, and reported to `onDefect`.
 */
export function statusOf(
  error: unknown,
  cancelled: boolean,
  onDefect: (error: unknown) => void,
): CallStatus {
  if (error instanceof OpError) {
    return { code: STATUS[error.code], message: headerText(error.message) };
  }
  if (cancelled && error instanceof Error && error.name === 'AbortError') {
    return { code: STATUS.Canceled, message: 'the request was cancelled' };
  }
  onDefect(error);
  return { code: STATUS.Internal, message: headerText(`defect: ${messageOf(error)}`) };
}

/** The OpError that a status stands for, on the client's side. A number gRPC does not know is Unknown. */
export const errorOf = (code: number, message: string): OpError =>
  new OpError(CODES.get(code) ?? 'Unknown', message);

/** containerd's clients would make another class of an error whose message ends like this. */
const MISLEADING_END = /: (conflict|not modified)$/;

function headerText(message: string): string {
  const short = message.length <= MESSAGE_MAX ? message : `${message.slice(0, MESSAGE_MAX)}…`;
  // A lone surrogate has no UTF-8, and percent-encoding would throw.
  const text = short.toWellFormed();
  return MISLEADING_END.test(text) ? `${text}.` : text;
}
