// Bundles the daemon with its CLI, and what its threads run, into dist/.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const ROOT = join(import.meta.dirname, '..');
const DIST = join(ROOT, 'dist');

/** What ends up in dist/ under which name. */
const ENTRIES = {
  main: 'src/main.ts',
  worker: 'src/daemon/worker.ts',
  'layer-worker': 'src/daemon/layer-worker.ts',
};

/** Packages with native code, and one that starts threads with a file of its own. */
const NOT_BUNDLED = ['koffi', 'classic-level', 'piscina'];

/** CommonJS inside the bundle asks for Node's modules by `require`, which an ES module does not have. */
const BANNER = `import { createRequire as __createRequire } from 'node:module';
const require = __createRequire(import.meta.url);`;

/** Starts in half the time with compiled code at hand; not in /tmp, where others could put theirs. */
const LAUNCHER = `import { enableCompileCache } from 'node:module';
import { join } from 'node:path';

enableCompileCache(join(import.meta.dirname, '.compile-cache'));
await import('./main.mjs');
`;

const generated = spawnSync(process.execPath, [join(ROOT, 'scripts/generate.mjs')], {
  stdio: 'inherit',
});
if (generated.status !== 0) process.exit(generated.status ?? 1);

for (const source of Object.values(ENTRIES)) {
  if (!existsSync(join(ROOT, source))) throw new Error(`${source} is missing`);
}

const { outputFiles } = await build({
  absWorkingDir: ROOT,
  entryPoints: ENTRIES,
  outdir: 'dist',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  format: 'esm',
  // Node 24 runs what we write as it is.
  target: 'esnext',
  external: NOT_BUNDLED,
  banner: { js: BANNER },
  write: false,
  logLevel: 'warning',
});
mkdirSync(DIST, { recursive: true });
for (const { path, contents } of outputFiles) replace(path, contents);
replace(join(DIST, 'ballast.mjs'), Buffer.from(LAUNCHER));

/** A daemon that starts at this moment sees the old file or the new one. */
function replace(path, contents) {
  if (existsSync(path) && readFileSync(path).equals(contents)) return;
  writeFileSync(`${path}.new`, contents);
  renameSync(`${path}.new`, path);
}
