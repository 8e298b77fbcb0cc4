import { parse } from 'smol-toml';
import { expect, onTestFinished, test, vi } from 'vitest';

import { OpError } from '../../base/errors.ts';
import { run } from './program.ts';
import type { CheckedConfig, CheckedSnapshotter, ServeRequest } from './programs.ts';

const snapshotter = (name: string, driver: string, root: string): CheckedSnapshotter => ({
  name,
  driver,
  durability: 'full',
  root,
  table: {},
});

const CONFIG: CheckedConfig = {
  root: '/srv/ballast',
  containerdAddress: undefined,
  plugin: { socket: '/run/b/plugin.sock' },
  standalone: undefined,
  snapshotters: new Map([
    ['fast', snapshotter('fast', 'overlay', '/srv/ballast/snapshotters/fast')],
    ['copies', snapshotter('copies', 'native', '/mnt/copies')],
  ]),
};

async function ballast(...argv: readonly string[]) {
  const said = { out: '', err: '', served: [] as ServeRequest[] };
  const code = await run(argv, {
    version: '1.2.3',
    drivers: ['overlay', 'native'],
    defaultConfigFile: '/etc/ballast/config.toml',
    loadConfig: (file) => {
      if (file === 'wrong') throw new OpError('InvalidArgument', 'wrong:7: no good');
      if (file === 'missing') throw new OpError('NotFound', 'missing: none');
      if (file === 'alone') return { ...CONFIG, standalone: { socket: '/run/a.sock' } };
      if (file === 'connected') return { ...CONFIG, containerdAddress: '/run/c.sock' };
      return file === 'empty' ? { ...CONFIG, snapshotters: new Map() } : CONFIG;
    },
    capabilitiesOf: ({ driver }) => (driver === 'overlay' ? ['remap-ids'] : []),
    serve: (request) => {
      said.served.push(request);
      return Promise.resolve();
    },
    out: (text) => void (said.out += text),
    err: (text) => void (said.err += text),
  });
  return { ...said, code };
}

test('--version names version, Node and drivers', async () => {
  const { code, out } = await ballast('--version');
  expect(code).toBe(0);
  expect(out).toMatch(/^ballast 1\.2\.3 \(node v\d+\..*, drivers overlay, native\)\n$/);
});

test.for([
  [],
  ['serve'],
  ['config'],
  ['config', 'check'],
  ['config', 'print'],
  ['config', 'roots'],
  ['gc'],
  ['gc', 'why'],
  ['gc', 'plan'],
  ['gc', 'run'],
])('the help of "%s" comes with examples', async (command) => {
  const { code, out } = await ballast(...command, '--help');
  expect(code).toBe(0);
  expect(out).toContain('Usage: ballast');
  if (!['config', 'gc'].includes(command.join())) expect(out).toMatch(/Examples?:\n {2}ballast /);
});

test('a command line that makes no sense ends with 2, a fault with 1 and one line', async () => {
  expect(await ballast('sevre')).toMatchObject({ code: 2, out: '' });
  expect(await ballast('serve', '--sokcet', '/x')).toMatchObject({ code: 2, served: [] });
  expect(await ballast('config', 'check', 'wrong')).toEqual({
    code: 1,
    out: '',
    err: 'ballast: wrong:7: no good\n',
    served: [],
  });
});

test('serve starts by the default config, by another, or by flags alone', async () => {
  const log = { level: undefined, format: undefined };
  expect((await ballast('serve')).served).toEqual([{ config: '/etc/ballast/config.toml', log }]);
  expect((await ballast('serve', '--config', 'x', '--log-format', 'text')).served).toEqual([
    { config: 'x', log: { level: undefined, format: 'text' } },
  ]);
  const flags = [
    '--socket',
    's',
    '--root',
    'r',
    '--snapshotter',
    'native',
    '--durability',
    'metadata',
  ];
  expect((await ballast('serve', ...flags)).served).toMatchObject([
    { flags: { socket: 's', root: 'r', snapshotter: 'native', durability: 'metadata' } },
  ]);
});

test('serve refuses half a set of flags, and flags beside a config file', async () => {
  expect(await ballast('serve', '--socket', 's')).toMatchObject({
    code: 1,
    served: [],
    err: expect.stringContaining('it needs --root DIR, and --socket PATH or --standalone PATH'),
  });
  const kinds = ['--socket', 's', '--standalone', 'a', '--root', 'r'];
  expect(await ballast('serve', ...kinds)).toMatchObject({ code: 1, served: [] });
  const both = ['--config', 'c', '--socket', 's', '--root', 'r'];
  expect(await ballast('serve', ...both)).toMatchObject({
    code: 1,
    served: [],
    err: expect.stringContaining('--config says all'),
  });
});

test.for([
  ['config', 'print', 'docker', '--config', 'alone'],
  ['check', '--config', 'alone'],
])('%s of a standalone socket is refused', async (argv) => {
  expect(await ballast(...argv)).toMatchObject({
    code: 1,
    out: '',
    err: expect.stringContaining('alone: has a [standalone] socket'),
  });
});

test('config roots prints each folder that a backup needs, once', async () => {
  expect((await ballast('config', 'roots')).out).toBe('/srv/ballast\n/mnt/copies\n');
});

test('config print: the drop-in is TOML with our plugins, sockets, roots and capabilities', async () => {
  const { code, out, err } = await ballast('config', 'print', 'containerd', '--version', '2.x');
  expect([code, err]).toEqual([0, '']);
  const dropIn = parse(out);
  expect(dropIn['version']).toBe(3);
  expect(dropIn['disabled_plugins']).toBeUndefined();
  expect(dropIn['proxy_plugins']).toEqual({
    fast: {
      type: 'snapshot',
      address: '/run/b/plugin.sock',
      capabilities: ['remap-ids'],
      exports: { root: '/srv/ballast/snapshotters/fast' },
    },
    copies: { type: 'snapshot', address: '/run/b/plugin.sock', exports: { root: '/mnt/copies' } },
  });
  expect(dropIn['plugins']).toMatchObject({
    'io.containerd.transfer.v1.local': {
      unpack_config: [
        { snapshotter: 'overlayfs' },
        { snapshotter: 'fast' },
        { snapshotter: 'copies' },
      ],
    },
  });
});

test('config print --content takes the place of the built-in store, with a warning', async () => {
  const { out, err } = await ballast(
    'config',
    'print',
    'containerd',
    '--version',
    '1.6',
    '--content',
  );
  expect(err).toContain('no longer finds the blobs');
  expect(parse(out)).toMatchObject({
    version: 2,
    disabled_plugins: ['io.containerd.content.v1.content'],
    proxy_plugins: {
      'ballast-content': { type: 'content', exports: { root: '/srv/ballast/content' } },
    },
  });
  expect(parse(out)['plugins'], '1.6 has no transfer service').toBeUndefined();
});

test("config print --differ puts our layer engine before containerd's own", async () => {
  const print = (version: string, config = 'connected') =>
    ballast('config', 'print', 'containerd', '--version', version, '--differ', '--config', config);
  for (const version of ['1.7', '2.x']) {
    const { out } = await print(version);
    expect(parse(out)).toMatchObject({
      proxy_plugins: { 'ballast-differ': { type: 'diff', address: '/run/b/plugin.sock' } },
      plugins: {
        'io.containerd.service.v1.diff-service': { default: ['ballast-differ', 'walking'] },
        'io.containerd.transfer.v1.local': {
          unpack_config: [
            { snapshotter: 'overlayfs', differ: 'walking' },
            { snapshotter: 'fast', differ: 'ballast-differ' },
            { snapshotter: 'copies', differ: 'ballast-differ' },
          ],
        },
      },
    });
  }
  expect((await print('1.6')).err).toContain('knows no differs');
  expect((await print('2.x', 'other')).err).toContain('set containerd_address');
});

test('config print says what is missing', async () => {
  const noVersion = await ballast('config', 'print', 'containerd');
  expect([noVersion.code, noVersion.err]).toEqual([
    1,
    expect.stringContaining('--version 1.6|1.7|2.x'),
  ]);
  expect((await ballast('config', 'print', 'containerd', '--version', '3')).code).toBe(2);
  const empty = await ballast(
    'config',
    'print',
    'containerd',
    '--version',
    '2.x',
    '--config',
    'empty',
  );
  expect([empty.code, empty.out]).toEqual([1, '']);
  expect(empty.err).toContain('[snapshotter.NAME]');
});

test('config print docker is JSON for daemon.json, with advice beside it', async () => {
  const { out, err } = await ballast('config', 'print', 'docker');
  expect(JSON.parse(out)).toEqual({
    containerd: '/run/containerd/containerd.sock',
    features: { 'containerd-snapshotter': true },
    'storage-driver': 'fast',
  });
  expect(err).toContain('config print containerd');
});

test('config print k3s wraps the base template; keys of the top level stand before it', async () => {
  const { out } = await ballast('config', 'print', 'k3s', '--version', '2.x', '--content');
  const base = out.indexOf('{{ template "base" . }}');
  expect(out).toContain('config-v3.toml.tmpl');
  expect(base).toBeGreaterThan(out.indexOf('disabled_plugins'));
  expect(out.indexOf('[proxy_plugins."fast"]')).toBeGreaterThan(base);
  const rendered = out.replace('{{ template "base" . }}', 'version = 3\n[plugins.base]\n');
  expect(parse(rendered)['proxy_plugins']).toMatchObject({ fast: { type: 'snapshot' } });
});

test('a command that asks a daemon says on which socket it did: that of the flag, of the environment, or of the config', async () => {
  vi.stubEnv('BALLAST_ADDRESS', undefined);
  onTestFinished(() => void vi.unstubAllEnvs());
  const said = async (...argv: readonly string[]): Promise<string> =>
    (await ballast('gc', 'run', ...argv)).err;
  expect(await said('--address', '/none.sock')).toContain('ballast: asked on /none.sock: ');
  expect(await said()).toContain('ballast: asked on /run/b/plugin.sock: ');
  expect(await said('--config', 'alone')).toContain('ballast: asked on /run/a.sock: ');
  expect(await said('--config', 'missing')).toBe(
    'ballast: missing: cannot read the config; say which ballast to ask, by --address SOCKET, BALLAST_ADDRESS or --config FILE\n',
  );
  vi.stubEnv('BALLAST_ADDRESS', '/other.sock');
  expect(await said()).toContain('ballast: asked on /other.sock: ');
  expect(await said('--address', '/none.sock')).toContain('ballast: asked on /none.sock: ');
  expect(await ballast('gc', 'why')).toMatchObject({ code: 2 });
});
