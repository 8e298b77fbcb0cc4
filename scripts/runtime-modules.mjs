// Prints the folders of the npm packages that the built bundle still needs when it runs (native ones and
// what brings files of its own), one a line, relative to the top of the repository. For scripts/install.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');

const manifestOf = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));

/**
 * Production packages whose name stands in the bundle as a string and whose code does not: that a string
 * is a name to load is not always to be seen (`require` may be called anything), and one too many does no
 * harm. The bundler leaves the path of each file it took in as a comment.
 */
function neededBy(bundle) {
  const text = readFileSync(bundle, 'utf8');
  return production.filter(
    (name) =>
      (text.includes(`"${name}"`) || text.includes(`'${name}'`)) &&
      !text.includes(`// node_modules/${name}/`),
  );
}

/** Where Node finds a package that `folder` asks for: in its own node_modules, or in one above. */
function folderOf(name, folder) {
  for (let at = folder; at.startsWith(ROOT); at = join(at, '..')) {
    const candidate = join(at, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
  }
  return undefined;
}

/** All that `names` need in turn; optional ones only as far as npm installed them for this machine. */
function closure(names, from, found) {
  for (const name of names) {
    const folder = folderOf(name, from);
    if (folder === undefined || found.has(folder)) continue;
    found.add(folder);
    const { dependencies = {}, optionalDependencies = {} } = manifestOf(folder);
    closure(Object.keys({ ...dependencies, ...optionalDependencies }), folder, found);
  }
  return found;
}

const everything = closure(Object.keys(manifestOf(ROOT).dependencies), ROOT, new Set());
const production = [...everything]
  .map((folder) => manifestOf(folder).name)
  // Types are not code, and Node itself is copied on its own.
  .filter((name) => name !== 'node' && !name.startsWith('@types/'));

const bundles = readdirSync(join(ROOT, 'dist')).filter((file) => /\.[cm]?js$/.test(file));
const needed = new Set();
for (const bundle of bundles) {
  for (const name of neededBy(join(ROOT, 'dist', bundle))) needed.add(name);
}
for (const folder of [...closure([...needed], ROOT, new Set())].toSorted()) {
  process.stdout.write(`${folder.slice(ROOT.length + 1)}\n`);
}
