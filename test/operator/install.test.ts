import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { connect } from '../../src/grpc/proxy/connect.ts';
import { background } from '../../src/base/context.ts';
import { Program } from '../interop/program.ts';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { type Answer, answerOf } from './site.ts';

/* scripts/install into a prefix of its own: the machine's /usr/local and systemd are left alone. */

let folder: string;
let prefix: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ballast-install-'));
  prefix = join(folder, 'prefix');
  // What a machine without Node.js has of the tools that the launcher needs.
  await mkdir(join(folder, 'path'));
  for (const tool of ['readlink', 'dirname']) {
    await symlink(`/usr/bin/${tool}`, join(folder, 'path', tool));
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));
beforeEach(() => rm(prefix, { recursive: true, force: true }));

const install = (...args: readonly string[]): Promise<Answer> =>
  answerOf(join(repository, 'scripts/install'), ['--prefix', prefix, ...args]);

const uninstall = (...args: readonly string[]): Promise<Answer> =>
  install('--uninstall', '--containerd-config', join(folder, 'containerd.toml'), ...args);

const installed = (...args: readonly string[]): Promise<Answer> =>
  answerOf(join(prefix, 'bin/ballast'), args, { PATH: join(folder, 'path') });

const config = (): string => join(prefix, 'etc/ballast/config.toml');

async function writeConfig(): Promise<{ readonly socket: string; readonly root: string }> {
  const socket = join(folder, 'plugin.sock');
  const root = join(prefix, 'data');
  await writeFile(
    config(),
    `root = "${root}"\n[plugin]\nsocket = "${socket}"\n[snapshotter.copies]\ndriver = "native"\n`,
  );
  return { socket, root };
}

test('what is installed runs without the repository and without a Node.js in PATH', async () => {
  const { code, out, err } = await install();
  expect([code, err]).toEqual([0, '']);
  expect(out).toContain(`systemctl link ${prefix}/lib/systemd/system/ballast.socket`);
  const version = await installed('--version');
  expect(version.out).toMatch(/^ballast \d+\.\d+\.\d+ \(node v24\./);
  expect((await installed('config', 'check', config())).code).toBe(0);

  const { socket } = await writeConfig();
  const daemon = new Program(join(prefix, 'bin/ballast'), ['serve', '--config', config()], {
    env: { PATH: join(folder, 'path') },
  });
  try {
    await daemon.says(/"serving"/);
    await using client = connect(socket);
    const snapshots = client.snapshots('copies');
    // The native driver's copies are made in worker threads, by native code.
    await snapshots.prepare(background, 'a', '', new Map());
    await snapshots.commit(background, 'base', 'a', new Map(), '');
    await snapshots.prepare(background, 'b', 'base', new Map());
  } finally {
    expect(await daemon.stop('SIGTERM')).toEqual({ code: 0, signal: null });
  }
});

test('systemd finds nothing wrong with the units', async () => {
  await install();
  const units = ['ballast.service', 'ballast.socket'];
  const paths = units.map((unit) => join(prefix, 'lib/systemd/system', unit));
  const { code, err } = await answerOf('systemd-analyze', ['verify', '--man=no', ...paths]);
  expect([code, err]).toEqual([0, '']);
  const service = await readFile(paths[0] ?? '', 'utf8');
  expect(service).toContain(`ExecStart=${prefix}/bin/ballast serve --config ${config()}\n`);
});

test('installing again is an upgrade: config and the release before are kept', async () => {
  await install();
  await writeConfig();
  const releases = () => readdir(join(prefix, 'lib/ballast'));
  const [first = ''] = await releases();
  const { out } = await install();
  expect(out).toContain('systemctl restart ballast');
  expect(out).toContain(`ln -sfn ${prefix}/lib/ballast/${first}/bin/ballast`);
  expect(await releases()).toHaveLength(2);
  expect(await readFile(config(), 'utf8')).toContain('copies');
  await install();
  const kept = await releases();
  expect(kept).toHaveLength(2);
  expect(kept).not.toContain(first);
});

test('uninstall refuses while a file that containerd imports names us, then leaves only the config', async () => {
  await install();
  const { socket } = await writeConfig();
  await mkdir(join(folder, 'conf.d'), { recursive: true });
  await writeFile(
    join(folder, 'containerd.toml'),
    'version = 2\nimports = [ # ours\n  "conf.d/*.toml",\n]\n[plugins]\n',
  );
  const dropIn = join(folder, 'conf.d/ballast.toml');
  const print = ['config', 'print', 'containerd', '--version', '1.7', '--config', config()];
  await writeFile(dropIn, (await installed(...print)).out);

  const refused = await uninstall();
  expect(refused.code).toBe(1);
  expect(refused.err).toContain("containerd's config still names ballast");
  expect(refused.err).toContain(dropIn);
  expect((await installed('--version')).code).toBe(0);

  await writeFile(dropIn, `# address = "${socket}"\n`);
  expect(await uninstall()).toMatchObject({ code: 0, err: '' });
  expect(await run('find', [prefix, '-type', 'f'])).toBe(`${config()}\n`);
});

test('uninstall --purge leaves nothing, data included', async () => {
  await install();
  const { root } = await writeConfig();
  await mkdir(join(root, 'content'), { recursive: true });
  expect(await uninstall('--purge')).toMatchObject({ code: 0, err: '' });
  expect(await readdir(prefix).catch(() => [])).toEqual([]);
});

test('a wrong flag installs nothing', async () => {
  const { code, err } = await install('--prefx', '/x');
  expect([code, err]).toEqual([1, 'install: does not know --prefx; see --help\n']);
  expect((await answerOf(join(repository, 'scripts/install'), ['--help'])).out).toContain(
    '--purge',
  );
});
