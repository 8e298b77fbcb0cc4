import { expect, test } from 'vitest';

import { OpError } from '../base/errors.ts';
import { inheritedSockets } from './listen-fds.ts';

const PID = 4711;

test('without a supervisor there is nothing to inherit', () => {
  expect(inheritedSockets({}, PID)).toEqual([]);
});

test('descriptors that were meant for another process are left alone', () => {
  expect(inheritedSockets({ LISTEN_PID: '1', LISTEN_FDS: '1' }, PID)).toEqual([]);
});

test('several sockets of which none is called plugin are refused', () => {
  const environment = { LISTEN_PID: `${PID}`, LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' };
  expect(() => inheritedSockets(environment, PID)).toThrow(/FileDescriptorName=plugin/);
});

test('a descriptor that is no socket is refused by its number', () => {
  const environment = {
    LISTEN_PID: `${PID}`,
    LISTEN_FDS: '5000',
    LISTEN_FDNAMES: ':'.repeat(4000) + 'plugin',
  };
  expect(() => inheritedSockets(environment, PID)).toThrow(OpError);
  expect(() => inheritedSockets(environment, PID)).toThrow(
    /file descriptor 4003 is no open socket/,
  );
});
