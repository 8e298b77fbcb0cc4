// What `ctr` does that cannot stand beside a containerd's answer word for word.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RELEASES } from '../interop/containerd.ts';
import { Program } from '../interop/program.ts';
import { VERSION } from '../../src/version.ts';
import { Alone, plainContainerd } from './site.ts';
import { writeSmallImage } from './small-image.ts';

for (const release of RELEASES) {
  const local = release.local.join(' ');

  test(`ctr ${release.name}: an image goes out as it came in`, async () => {
    const alone = await Alone.start(release);
    const image = await writeSmallImage(join(alone.folder, 'in.tar'));
    await alone.sh(`
      ctr images import ${local} in.tar
      ctr images export ${local} out.tar ${image.reference}
      mkdir in out; tar -xf in.tar -C in; tar -xf out.tar -C out`);
    expect(await alone.sh('cat in/blobs/sha256/* | sha256sum')).toBe(
      await alone.sh('cat out/blobs/sha256/* | sha256sum'),
    );
  });

  test(`ctr ${release.name}: content comes by ingest, is edited, and goes`, async () => {
    const alone = await Alone.start(release);
    const digest = 'sha256:ceb3cd55d3e5d6ebd2a26ea9bc88e3a8d0a9bd96f8bcec5c4ee8b3a21f2d6d04';
    await alone.sh('printf bytes | ctr content ingest some-ref');
    const [found = ''] = (await alone.ctr('content', 'ls', '-q')).split('\n');
    expect(found).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await alone.ctr('content', 'get', found)).toBe('bytes');
    await expect(
      alone.sh(`printf other | ctr content ingest --expected-digest ${digest} second`),
    ).rejects.toThrow();
    expect(await alone.ctr('content', 'active')).toContain('second');
    await expect(alone.ctr('namespaces', 'rm', 'test')).rejects.toThrow(/blobs, ingests/);
    await alone.sh(`
      printf '#!/bin/sh\nprintf edited >"$1"\n' >edit
      chmod +x edit
      ctr content edit --editor ./edit ${found}`);
    expect(await alone.ctr('content', 'ls', '-q')).not.toBe(`${found}\n`);
    await alone.ctr('content', 'rm', found);
    await expect(alone.ctr('content', 'get', found)).rejects.toThrow(/not found/);
  });

  test(`ctr ${release.name}: a snapshot's changes are a layer`, async () => {
    const alone = await Alone.start(release);
    const image = await writeSmallImage(join(alone.folder, 'in.tar'));
    const layers = await alone.sh(`
      ctr images import ${local} in.tar >/dev/null
      ctr snapshots diff ${image.chain[1]} | gzip -dc | tar -t`);
    expect(layers).toContain('two');
  });

  test(`ctr ${release.name}: the namespace says which snapshotter an import unpacks into`, async () => {
    const alone = await Alone.start(release);
    const image = await writeSmallImage(join(alone.folder, 'in.tar'));
    await alone.sh(`
      ctr namespaces label test containerd.io/defaults/snapshotter=native
      ctr images import ${local} in.tar`);
    expect(await alone.sh('ctr snapshots --snapshotter native ls')).toContain(image.chain[1]);
    expect(await alone.sh('ctr snapshots --snapshotter overlayfs ls')).not.toContain('sha256');
  });

  test(`ctr ${release.name}: events tell of an import`, async () => {
    const alone = await Alone.start(release);
    await writeSmallImage(join(alone.folder, 'in.tar'));
    const events = alone.beside('events');
    try {
      // Nothing says that it listens now: it is told of namespaces until it has heard of one.
      const heard = events.says(/\/namespaces\/create/);
      let done = false;
      void heard.then(() => (done = true));
      for (let n = 0; !done; n++) await alone.ctr('namespaces', 'create', `n${n}`);
      await heard;
      await alone.sh(`ctr images import ${local} in.tar`);
      await events.says(/\/images\/create \{"name":"example.org\/small:1"/);
      await events.says(/\/snapshot\/prepare [^]*\/snapshot\/commit /);
      expect(events.output).toMatch(/\/content\/create |\/images\/create /);
    } finally {
      await events.stop('SIGKILL');
    }
  });

  test(`ctr ${release.name}: version and plugins are ballast's`, async () => {
    const alone = await Alone.start(release);
    expect(await alone.ctr('version')).toContain(VERSION);
    const plugins = await alone.ctr('plugins', 'ls');
    expect(plugins).toMatch(/io\.containerd\.snapshotter\.v1 +overlayfs .*ok/);
    expect(plugins).toMatch(/io\.containerd\.snapshotter\.v1 +native .*ok/);
  });
}

for (const release of RELEASES) {
  test(`ctr ${release.name} hears of the same events as on containerd`, async () => {
    const alone = await Alone.start(release);
    const folder = join(alone.folder, 'containerd');
    await mkdir(folder);
    const containerd = await plainContainerd(release, folder);
    const image = await writeSmallImage(join(alone.folder, 'in.tar'));
    const script = [
      ['namespaces', 'label', 'marker', 'a=b'],
      ['images', 'import', ...release.local, join(alone.folder, 'in.tar')],
      ['images', 'label', image.reference, 'a=b'],
      ['snapshots', 'prepare', 'work', image.chain[1]],
      ['snapshots', 'commit', 'layer', 'work'],
      ['snapshots', 'view', 'seen', 'layer'],
      ['snapshots', 'rm', 'seen'],
      ['containers', 'create', image.reference, 'first'],
      ['containers', 'label', 'first', 'a=b'],
      ['containers', 'rm', 'first'],
      ['leases', 'create', '--id', 'lease'],
      ['leases', 'rm', 'lease'],
      ['images', 'rm', image.reference],
      ['content', 'rm', image.manifest],
      ['namespaces', 'rm', 'marker'],
    ];
    const ours = alone.beside('events');
    const address = join(folder, 'containerd.sock');
    const theirs = new Program(join(containerd.binaries, 'ctr'), ['--address', address, 'events']);
    const told = async (peer: Alone | typeof containerd, events: Program): Promise<string> => {
      try {
        const listens = events.says(/\/namespaces\/create/);
        let does = false;
        void listens.then(() => (does = true));
        for (let n = 0; !does; n++) await peer.ctr('namespaces', 'create', `n${n}`);
        await peer.ctr('namespaces', 'create', 'marker');
        for (const command of script) await peer.ctr(...command);
        await events.says(/marker \/namespaces\/delete/);
      } finally {
        await events.stop('SIGKILL');
      }
      return inNewWords(events.output.slice(events.output.search(/^.*"name":"marker","labels"/m)));
    };
    const [one, other] = [await told(alone, ours), await told(containerd, theirs)];
    expect(one.split('\n')).toEqual(other.split('\n'));
    expect(one.split('\n').length).toBeGreaterThan(script.length);
  });
}

/**
 * Without times and numbers, and as of containerd 2: 1.6 told of a namespace's update in the namespace of the
 * request, and neither 1.6 nor 1.7 told of content, which their `ctr` cannot decode.
 */
const inNewWords = (output: string): string =>
  output
    .replace(/^time=.*containerd\.events\.Content.*\n/gm, '')
    .replace(/^.* UTC /gm, '')
    .replace(/^test (\/namespaces\/update .*"name":"marker")/gm, 'marker $1')
    .replace(/extract-\S+/g, 'extract');
