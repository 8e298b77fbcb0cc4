import type { Any } from '../../events/event.ts';
import type { google } from '../gen/wire.js';

type WireAny = google.protobuf.Any.$Properties;

export const anyFromWire = (any: WireAny | null | undefined): Any | undefined =>
  any
    ? {
        typeUrl: any.type_url ?? '',
        // A copy: the bytes came as a part of a larger message, which would stay in memory with them.
        value: Uint8Array.from(any.value ?? []),
      }
    : undefined;

export const anyToWire = ({ typeUrl, value }: Any): WireAny => ({ type_url: typeUrl, value });
