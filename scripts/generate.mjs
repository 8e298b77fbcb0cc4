// Makes src/grpc/gen/ from proto/: static codecs with their types, and file descriptors for reflection.
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pbjs from 'protobufjs-cli/pbjs.js';
import pbts from 'protobufjs-cli/pbts.js';
import protobuf from 'protobufjs';
import descriptor from 'protobufjs/ext/descriptor.js';

const ROOT = join(import.meta.dirname, '..');
const PROTO = join(ROOT, 'proto');
const OUT = join(ROOT, 'src/grpc/gen');
const STAMP = join(OUT, '.stamp');

const files = readdirSync(PROTO, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.proto'))
  .toSorted();

const stamp = stampOf(files);
if (readStamp() !== stamp) {
  rmSync(OUT, { recursive: true, force: true });
  mkdirSync(OUT, { recursive: true });
  await generateCodecs();
  generateDescriptors();
  writeFileSync(STAMP, stamp);
}

function stampOf(names) {
  const hash = createHash('sha256');
  const require = createRequire(import.meta.url);
  for (const tool of ['protobufjs', 'protobufjs-cli']) {
    hash.update(require(`${tool}/package.json`).version);
  }
  hash.update(readFileSync(import.meta.filename));
  for (const name of names) hash.update(`${name}\0`).update(readFileSync(join(PROTO, name)));
  return hash.digest('hex');
}

function readStamp() {
  try {
    return readFileSync(STAMP, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
}

async function generateCodecs() {
  const js = join(OUT, 'wire.js');
  const types = join(OUT, 'wire.d.ts');
  const without = ['create', 'verify', 'convert', 'delimited', 'typeurl', 'service', 'beautify'];
  const paths = files.map((file) => join(PROTO, file));
  await promisify(pbjs.main)([
    '--target=static-module',
    '--wrap=esm',
    '--force-number',
    `--path=${PROTO}`,
    `--out=${js}`,
    ...without.map((feature) => `--no-${feature}`),
    ...paths,
  ]);
  await promisify(pbts.main)(['--no-comments', '--out', types, js]);
  // Where the package `long` is installed, protobufjs decodes int64 to its objects whatever
  // --force-number says, and comparisons with numbers fail silently.
  replaceOnce(
    js,
    'import $protobuf from "protobufjs/minimal.js";',
    '$&\n$protobuf.util.Long = null;\n$protobuf.configure();',
  );
  replaceOnce(types, 'import Long = require("long");\n', '');
}

function replaceOnce(path, text, replacement) {
  const before = readFileSync(path, 'utf8');
  if (before.split(text).length !== 2) throw new Error(`${path}: expected once: ${text}`);
  writeFileSync(path, before.replace(text, replacement));
}

/** protobufjs merges all files of a package into one namespace; its objects remember their file. */
function generateDescriptors() {
  const root = new protobuf.Root();
  const importsOf = new Map();
  root.resolvePath = (_origin, target) => join(PROTO, target);
  const resolved = new Map();
  for (const file of files) load(root, file, importsOf, resolved);
  root.resolveAll();
  const described = [...importsOf].map(([name, dependency]) => {
    const symbols = [];
    const message = fileDescriptor(root, resolved.get(name), { name, dependency }, symbols);
    const bytes = descriptor.FileDescriptorProto.encode(message).finish();
    return {
      name,
      dependencies: dependency,
      symbols,
      base64: Buffer.from(bytes).toString('base64'),
    };
  });
  writeFileSync(
    join(OUT, 'descriptors.ts'),
    `export const FILES: readonly FileEntry[] = ${JSON.stringify(described, null, 1)};\n` +
      `export interface FileEntry { readonly name: string; readonly dependencies: readonly string[]; ` +
      `readonly symbols: readonly string[]; readonly base64: string }\n`,
  );
}

/** Parses a file after what it imports; google's own come from protobufjs. */
function load(root, file, importsOf, resolved) {
  if (importsOf.has(file)) return;
  const common = protobuf.common.get(file);
  if (common === null) {
    protobuf.parse.filename = file;
    const parsed = protobuf.parse(readFileSync(join(PROTO, file), 'utf8'), root);
    protobuf.parse.filename = null;
    for (const dependency of parsed.imports ?? []) load(root, dependency, importsOf, resolved);
    importsOf.set(file, parsed.imports ?? []);
    resolved.set(file, parsed.package ?? '');
  } else {
    root.addJSON(common.nested);
    const name = 'google.protobuf';
    const messages = Object.keys(common.nested.google.nested.protobuf.nested);
    for (const message of messages) root.lookupType(`${name}.${message}`).filename = file;
    importsOf.set(file, []);
    resolved.set(file, name);
  }
}

function fileDescriptor(root, packageName, { name, dependency }, symbols) {
  const file = { name, package: packageName, dependency, syntax: 'proto3' };
  Object.assign(file, { messageType: [], enumType: [], service: [] });
  for (const object of root.lookup(packageName).nestedArray) {
    if (object.filename !== name) continue;
    if (object instanceof protobuf.Type) file.messageType.push(messageDescriptor(object));
    else if (object instanceof protobuf.Enum) file.enumType.push(object.toDescriptor('proto3'));
    else if (object instanceof protobuf.Service) file.service.push(serviceDescriptor(object));
    else throw new Error(`${name}: ${object.fullName} is not supported`);
    collectSymbols(object, symbols);
  }
  return descriptor.FileDescriptorProto.fromObject(file);
}

/**
 * protobufjs names types relative to where they are used, map entries after their field, and oneofs in
 * camel case; other implementations, Go's among them, refuse that.
 */
function messageDescriptor(type) {
  const message = type.toDescriptor('proto3');
  for (const field of message.field) {
    const reflected = type.fieldsById[field.number];
    field.jsonName = protobuf.util.camelCase(reflected.name);
    if (reflected.resolvedType) field.typeName = reflected.resolvedType.fullName;
    if (!reflected.map) continue;
    const camelCase = protobuf.util.ucFirst(reflected.name);
    const entry = message.nestedType.find((nested) => nested.name === camelCase);
    entry.name = `${camelCase}Entry`;
    field.typeName = `${type.fullName}.${entry.name}`;
    for (const part of entry.field) part.jsonName = part.name;
    if (reflected.resolvedType) entry.field[1].typeName = reflected.resolvedType.fullName;
  }
  for (const oneof of message.oneofDecl) {
    oneof.name = oneof.name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  }
  for (const nested of type.nestedArray) {
    if (!(nested instanceof protobuf.Type)) continue;
    const at = message.nestedType.findIndex(({ name }) => name === nested.name);
    message.nestedType[at] = messageDescriptor(nested);
  }
  return message;
}

function serviceDescriptor(service) {
  const described = service.toDescriptor('proto3');
  for (const method of described.method) {
    const { resolvedRequestType, resolvedResponseType } = service.methods[method.name];
    method.inputType = resolvedRequestType.fullName;
    method.outputType = resolvedResponseType.fullName;
  }
  return described;
}

function collectSymbols(object, symbols) {
  const name = object.fullName.slice(1);
  symbols.push(name);
  for (const method of Object.keys(object.methods ?? {})) symbols.push(`${name}.${method}`);
  for (const nested of object.nestedArray ?? []) collectSymbols(nested, symbols);
}
