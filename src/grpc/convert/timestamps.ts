const NANOSECONDS = 1_000_000_000n;

/** google.protobuf.Timestamp as the codecs hold it. */
export interface WireTimestamp {
  seconds?: number | null;
  nanos?: number | null;
}

/** @param nanoseconds since the epoch */
export function timestampToWire(nanoseconds: bigint): { seconds: number; nanos: number } {
  let nanos = Number(nanoseconds % NANOSECONDS);
  let seconds = Number(nanoseconds / NANOSECONDS);
  if (nanos < 0) {
    nanos += 1_000_000_000;
    seconds--;
  }
  return { seconds, nanos };
}

/** Nanoseconds since the epoch; 0 for a timestamp that was not sent. */
export function timestampFromWire(timestamp: WireTimestamp | null | undefined): bigint {
  return BigInt(timestamp?.seconds ?? 0) * NANOSECONDS + BigInt(timestamp?.nanos ?? 0);
}
