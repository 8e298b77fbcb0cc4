// On a full disk what nobody refers to is collected too: that is how room is made.
import { expect, test } from 'vitest';
import { isOpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { fill } from '../support/fill-disk.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { callsOf, COLLECT, inside, RPC, startAlone } from './client.ts';

const here = inside('here');
const LABELS = new Map([['filling', 'x'.repeat(2000)]]);
const TRIES_MAX = 3000;

test('on a full disk a delete that waits collects', async () => {
  await using disk = await loopFileSystem('ext4', 64);
  await using daemon = await startAlone(`${disk.path}/root`, COLLECT);
  using calls = callsOf(daemon);
  const { snapshotter, content } = daemon.client;
  const leased = inside('here', 'lease');
  await calls.unary(here, RPC.createLease, { id: 'lease' });
  for (let n = 0; n < 20; n++) {
    await using writer = await content.writer(leased, `ref-${n}`, {});
    await writer.write(0, Buffer.from(`blob ${n}`));
    await writer.commit(NO_LABELS);
  }
  await fill(`${disk.path}/filler`);
  let refused = false;
  for (let n = 0; n < TRIES_MAX && !refused; n++) {
    try {
      await snapshotter.prepare(leased, `key-${n}`, '', LABELS);
    } catch (error) {
      if (!isOpError(error, 'ResourceExhausted')) throw error;
      refused = true;
    }
  }
  expect(refused).toBe(true);
  await calls.unary(here, RPC.deleteLease, { id: 'lease', sync: true });
  expect(await Array.fromAsync(content.walk(here, []))).toEqual([]);
  expect(await Array.fromAsync(snapshotter.walk(here, []))).toEqual([]);
}, 120_000);
