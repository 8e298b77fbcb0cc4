import { expect, test } from 'vitest';
import { RELEASES } from './containerd.ts';
import { smallImage } from './images.ts';
import { Site } from './site.ts';
import { expectBaseLine, importImage, listSnapshots, removeImage } from './steps.ts';

const SNAPSHOTTER = 'ballast-overlay';
const SLEEP = ['/bin/sleep', '1000000'];

for (const release of RELEASES) {
  test(`containerd ${release.name} goes on with its next command after ballast was killed and started again`, async () => {
    const site = await Site.withContainerd(release);
    const before = await site.stored();
    const image = await smallImage();
    await importImage(site, image, SNAPSHOTTER);
    const run = ['--snapshotter', SNAPSHOTTER, image.reference];
    await site.containerd.run('--detach', ...run, 'lasting', ...SLEEP);

    await site.ballast.stop('SIGKILL');
    // The container needs nothing of us while it runs.
    await site.containerd.exec('lasting', '/bin/sh', '-c', 'echo still here >/note');
    await site.startBallast();

    const listed = await afterBackOff(() => listSnapshots(site, SNAPSHOTTER));
    expect(listed).toHaveLength(image.layers + 1);
    expect(await site.containerd.run('--rm', ...run, 'fresh', '/bin/cat', '/etc/kept')).toBe(
      'from the first layer\n',
    );
    expect(await site.containerd.exec('lasting', '/bin/cat', '/note')).toBe('still here\n');

    await site.containerd.ctr('tasks', 'rm', '--force', 'lasting');
    await site.containerd.ctr('containers', 'rm', 'lasting');
    await removeImage(site, image);
    await expectBaseLine(site, before);
  });

  test(`containerd ${release.name} works while ballast gets its socket from LISTEN_FDS, across a kill`, async () => {
    const site = await Site.create({ inherited: true });
    await site.startContainerd(release);
    const image = await smallImage();
    await importImage(site, image, SNAPSHOTTER);
    await site.ballast.stop('SIGKILL');

    // The socket goes on listening while nobody serves it: this command waits rather than fails, at
    // least for the second that containerd gives a server to greet. A busy machine may need longer.
    const waiting = afterBackOff(() => listSnapshots(site, SNAPSHOTTER));
    const [listed] = await Promise.all([waiting, site.startBallast()]);
    expect(listed).toHaveLength(image.layers);
    const cat = ['/bin/cat', '/etc/kept'];
    const run = ['--rm', '--snapshotter', SNAPSHOTTER, image.reference, 'after', ...cat];
    expect(await site.containerd.run(...run)).toBe('from the first layer\n');
  });
}

/**
 * Whenever something asked while nobody listened, the garbage collection say, containerd dials again
 * only after a back-off of one to three seconds, and calls fail with Unavailable until then.
 */
async function afterBackOff<T>(command: () => Promise<T>): Promise<T> {
  const patience = AbortSignal.timeout(5000);
  for (;;) {
    try {
      return await command();
    } catch (error) {
      if (
        patience.aborted ||
        !/connection (refused|closed|error)|server handshake/.test(String(error))
      )
        throw error;
    }
  }
}
