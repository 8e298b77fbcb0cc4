import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf } from './base/errors.ts';
import { DEFAULT_CONFIG_FILE } from './daemon/config-keys.ts';
import { configFor, loadConfig } from './daemon/config.ts';
import { openLog } from './daemon/log.ts';
import { serve } from './daemon/serve.ts';
import { run } from './frontend/cli/program.ts';
import { drivers } from './snapshotters/drivers.ts';
import { VERSION } from './version.ts';

/** Bundled beside this file; from sources the threads run the source. */
const folder = dirname(fileURLToPath(import.meta.url));
const worker = (name: string): string =>
  import.meta.url.endsWith('.ts') ? join(folder, `daemon/${name}.ts`) : join(folder, `${name}.mjs`);
const workers = { files: worker('worker'), layers: worker('layer-worker') };

try {
  process.exitCode = await run(process.argv.slice(2), {
    version: VERSION,
    drivers: drivers.map((driver) => driver.name),
    defaultConfigFile: DEFAULT_CONFIG_FILE,
    loadConfig: (file) => loadConfig(file, drivers),
    capabilitiesOf: ({ driver, table }) =>
      drivers.find(({ name }) => name === driver)?.capabilities(table) ?? [],
    serve: async (request) => {
      const config = configFor(request, drivers);
      await serve(config, openLog(config.log, process.env), workers);
    },
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
  });
} catch (error) {
  process.stderr.write(
    `ballast: this is a defect: ${error instanceof Error ? error.stack : messageOf(error)}\n`,
  );
  process.exitCode = 70;
}
