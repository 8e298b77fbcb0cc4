import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { Program } from '../interop/program.ts';
import { connect } from '../support/client.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';

const OPEN = `import { openLog } from '../../src/daemon/log.ts';
  const log = openLog({ level: 'info', format: 'auto' }, process.env);`;

const node = (script: string, stderr: 'pipe' | number, env: Record<string, string> = {}) =>
  spawn(process.execPath, ['--input-type=module', '-e', OPEN + script], {
    stdio: ['ignore', 'pipe', stderr],
    cwd: import.meta.dirname,
    env: { ...process.env, ...env },
  });

test('a log that nobody reads does not hold up the daemon', { timeout: 20_000 }, async () => {
  // Four megabytes: more than a pipe takes and more than is kept.
  const daemon = node(
    `for (let i = 0; i < 4000; i++) log.info({ i, text: 'x'.repeat(1000) }, 'unread');
     setImmediate(() => console.log('goes on'));
     setInterval(() => {}, 1000);`,
    'pipe',
  );
  try {
    daemon.stderr?.pause();
    const [line] = await once(createInterface({ input: daemon.stdout ?? process.stdin }), 'line');
    expect(line).toBe('goes on');
  } finally {
    daemon.kill('SIGKILL');
  }
});

test('the last line before an exit is written', async () => {
  const daemon = node(`log.error({}, 'stopping at once'); process.exit(1);`, 'pipe');
  if (daemon.stderr === null) throw new Error('no pipe');
  expect(await text(daemon.stderr)).toContain('"message":"stopping at once"');
});

test('the format is that of the journal only where stderr is the journal', async () => {
  await using folder = await temporaryFolder('log');
  const path = join(folder.path, 'journal');
  const file = openSync(path, 'w');
  const { dev, ino } = fstatSync(file);
  const journal = node(`log.warn({}, 'here');`, file, { JOURNAL_STREAM: `${dev}:${ino}` });
  await once(journal, 'exit');
  expect(await readFile(path, 'utf8')).toBe('<4>here\n');

  const elsewhere = node(`log.warn({}, 'there');`, 'pipe', { JOURNAL_STREAM: `${dev}:${ino}` });
  if (elsewhere.stderr === null) throw new Error('no pipe');
  expect(JSON.parse(await text(elsewhere.stderr))).toMatchObject({ message: 'there' });
});

test('at level debug each call is logged, with how it ended and how long it took', async () => {
  await using folder = await temporaryFolder('log');
  const socket = join(folder.path, 'socket');
  const flags = ['--socket', socket, '--root', join(folder.path, 'root'), '--log-level', 'debug'];
  const serve = ['serve', ...flags, '--snapshotter', 'native'];
  const program = new Program(join(repository, 'bin/ballast'), serve);
  try {
    await program.says(/"serving"/);
    await using client = connect(socket, 'native');
    await client.snapshotter.stat(background, 'absent').catch(() => undefined);
    await program.says(/"message":"call".*absent/);
    const lines = program.output.split('\n').filter((line) => line.includes('"call"'));
    expect(lines.map((line) => JSON.parse(line)).at(-1)).toMatchObject({
      level: 'debug',
      method: '/containerd.services.snapshots.v1.Snapshots/Stat',
      code: 5,
      error: expect.stringContaining('"absent"'),
      ms: expect.any(Number),
    });
  } finally {
    await program.stop('SIGKILL');
  }
});
