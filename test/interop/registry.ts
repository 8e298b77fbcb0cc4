import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { run } from '../support/run.ts';
import type { Image } from './images.ts';
import { Program } from './program.ts';

const HOST = 'registry.invalid';

/** Debian's docker-registry on loopback, and the config by which containerd takes a host that is none for it. */
export class Registry {
  readonly #address: string;
  /** For the `config_path` of containerd. */
  readonly hosts: string;

  private constructor(address: string, hosts: string) {
    this.#address = address;
    this.hosts = hosts;
  }

  /** @param folder where it keeps everything; it goes with the test */
  static async start(folder: string): Promise<Registry> {
    const config = join(folder, 'registry.yml');
    await writeFile(
      config,
      `version: 0.1
storage: { filesystem: { rootdirectory: ${folder}/registry } }
http: { addr: "127.0.0.1:0" }
`,
    );
    const program = new Program('docker-registry', ['serve', config]);
    onTestFinished(async () => void (await program.stop('SIGKILL').catch(() => undefined)));
    await program.says(LISTENING);
    const [, address = ''] = LISTENING.exec(program.output) ?? [];
    const hosts = join(folder, 'hosts');
    await mkdir(join(hosts, HOST), { recursive: true });
    await writeFile(join(hosts, HOST, 'hosts.toml'), `server = "http://${address}"\n`);
    return new Registry(address, hosts);
  }

  /** Puts an image of an OCI layout there, unchanged, and says how containerd calls it. */
  async push({ layout, tag }: Pick<Image, 'layout' | 'tag'>, name: string): Promise<string> {
    const flags = ['--insecure-policy', 'copy', '--quiet', '--dest-tls-verify=false'];
    const target = `docker://${this.#address}/${name}:v1`;
    await run('skopeo', [...flags, `oci:${layout}:${tag}`, target]);
    return `${HOST}/${name}:v1`;
  }
}

const LISTENING = /listening on (127\.0\.0\.1:\d+)/;
