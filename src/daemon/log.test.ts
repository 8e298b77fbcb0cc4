import { expect, test } from 'vitest';

import { OpError } from '../base/errors.ts';
import { createLog } from './log.ts';

function linesOf(format: 'json' | 'journal' | 'text', level: 'info' | 'debug' = 'info') {
  const lines: string[] = [];
  return { lines, log: createLog(level, format, (line) => void lines.push(line)) };
}

test('json is one object a line, with time, level and message', () => {
  const { lines, log } = linesOf('json');
  log.info({ socket: '/run/x', bytes: 5n }, 'serving');
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0] ?? '')).toEqual({
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    level: 'info',
    message: 'serving',
    socket: '/run/x',
    bytes: '5',
  });
});

test('the journal gets a priority, and no time of ours', () => {
  const { lines, log } = linesOf('journal');
  log.error({ key: 'a b' }, 'cannot remove');
  log.warn({}, 'slow');
  expect(lines).toEqual(['<3>cannot remove key="a b"\n', '<4>slow\n']);
});

test('text from outside cannot make a line of its own or look like another field', () => {
  for (const format of ['json', 'journal', 'text'] as const) {
    const { lines, log } = linesOf(format);
    log.info({ key: 'x\n<0>level=error' }, 'odd');
    expect(lines.join('').match(/\n/g)).toHaveLength(1);
    expect(lines[0]).toContain(String.raw`x\n<0>level=error"`);
  }
});

test('debug lines are written only where they were asked for', () => {
  const quiet = linesOf('text');
  quiet.log.debug({}, 'call');
  expect([quiet.lines, quiet.log.isDebug]).toEqual([[], false]);
  const loud = linesOf('text', 'debug');
  loud.log.debug({}, 'call');
  expect(loud.lines[0]).toMatch(/ debug call\n$/);
  expect(loud.log.isDebug).toBe(true);
});

test('an expected error is told in its words, a defect with its stack', () => {
  const { lines, log } = linesOf('json');
  log.warn({ error: new OpError('NotFound', 'snapshot "x" is not there') }, 'failed');
  log.error({ error: new TypeError('oops') }, 'defect');
  expect(lines[0]).toContain('"error":"NotFound: snapshot \\"x\\" is not there"');
  expect(lines[1]).toContain('log.test.ts');
});

test('a field that cannot be written costs the field, not the daemon', () => {
  const { lines, log } = linesOf('text');
  const circle: Record<string, unknown> = {};
  circle['self'] = circle;
  log.info({ circle }, 'still here');
  expect(lines[0]).toContain('still here circle=');
});
