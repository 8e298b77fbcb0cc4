import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { afterEach, expect, test } from 'vitest';

/*
 * What systemd does, done by hand: a datagram socket that hears READY and WATCHDOG, a listening socket
 * handed over as descriptor 3. The other side is a process of its own, as descriptors and pids matter.
 */

const TIMEOUT_MS = 20_000;
const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).toReversed()) await clean();
});

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp('/tmp/ballast-supervisor-');
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

/** Runs `script` in a Node of its own, started by a shell so that LISTEN_PID can be its pid. */
function start(script: string, environment: Record<string, string>, fds: readonly number[] = []) {
  const command = 'LISTEN_PID=$$ exec "$0" --input-type=module -e "$1"';
  const child = spawn('sh', ['-c', command, process.execPath, script], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit', ...fds],
    cwd: import.meta.dirname,
  });
  cleanups.push(() => ended(child));
  return child;
}

/** Prints the datagrams that come to an address until STOPPING=1: Node has no such socket, Python does. */
const LISTENER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace('@', '\\0'))
print('bound', flush=True)
heard = ''
while heard != 'STOPPING=1':
  heard = s.recv(4096).decode()
  print(heard, flush=True)`;

test.for(['path', 'abstract'])(
  'a supervisor at an address of kind %s hears ready, heartbeats and stopping',
  { timeout: TIMEOUT_MS },
  async (kind) => {
    const folder = await temporaryFolder();
    const address = kind === 'path' ? join(folder, 'notify') : `@${folder}/notify`;
    const listener = spawn('python3', ['-c', LISTENER, address], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    cleanups.push(() => ended(listener));
    const heard = text(listener.stdout);
    await once(listener.stdout, 'data');

    const daemon = start(
      `import { Notifier } from '../../src/daemon/notify.ts';
       const notifier = new Notifier(process.env);
       notifier.ready();
       notifier.status('two\\nlines');
       setTimeout(() => { notifier.stopping(); notifier[Symbol.dispose](); }, 300);`,
      { NOTIFY_SOCKET: address, WATCHDOG_USEC: '20000' },
    );
    expect(await once(daemon, 'exit')).toEqual([0, null]);
    const messages = (await heard).trim().split('\n');
    expect(messages.slice(0, 3)).toEqual(['bound', 'READY=1', 'STATUS=two lines']);
    expect(messages.filter((one) => one === 'WATCHDOG=1').length).toBeGreaterThan(3);
  },
);

test(
  'a listening socket that was handed over as descriptor 3 is found and answers',
  { timeout: TIMEOUT_MS },
  async () => {
    const path = join(await temporaryFolder(), 'plugin.sock');
    const listener = createServer().listen(path);
    await once(listener, 'listening');
    const fd: unknown = Reflect.get(Reflect.get(listener, '_handle'), 'fd');
    const daemon = start(
      `import { createServer } from 'node:net';
       import { inheritedSockets } from '../../src/daemon/listen-fds.ts';
       const [socket] = inheritedSockets(process.env);
       createServer((one) => one.end('inherited ' + socket.name))
         .listen({ fd: socket.fd }, () => console.log('listening'));`,
      { LISTEN_FDS: '1', LISTEN_FDNAMES: 'plugin' },
      [Number(fd)],
    );
    await once(createInterface({ input: daemon.stdout ?? process.stdin }), 'line');
    // Ours no longer accepts, and its close finds no file to remove: who answers has inherited it.
    await rename(path, `${path}.kept`);
    listener.close();
    expect(await text(connect(`${path}.kept`))).toBe('inherited plugin');
  },
);
