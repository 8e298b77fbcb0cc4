import { setImmediate } from 'node:timers/promises';
import type { Labels } from '../../base/labels.ts';
import { INFOS_PER_MESSAGE } from '../limits.ts';

/** Labels have no limit of their own, so that a hundred infos could pass a message's 16 MiB. */
const PACKED_LENGTH_MAX = 1 << 20;
/** A list that comes from memory lets others have their turn after this long. */
const TURN_MS = 5;

/** What a list sends: infos, some at a time. A message may end up as large as its last info. */
export async function* packed<Info extends { readonly labels: Labels }, Message>(
  infos: AsyncIterable<Info>,
  messageOf: (infos: readonly Info[]) => Message,
): AsyncIterable<Message> {
  let waiting: Info[] = [];
  let length = 0;
  let turnStarted = performance.now();
  for await (const info of infos) {
    waiting.push(info);
    for (const [key, value] of info.labels) length += key.length + value.length;
    if (waiting.length < INFOS_PER_MESSAGE && length < PACKED_LENGTH_MAX) continue;
    yield messageOf(waiting);
    waiting = [];
    length = 0;
    if (performance.now() - turnStarted < TURN_MS) continue;
    await setImmediate();
    turnStarted = performance.now();
  }
  if (waiting.length > 0) yield messageOf(waiting);
}
