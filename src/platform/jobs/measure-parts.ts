import { quote } from '../../base/errors.ts';
import { DirectoryChain, readDirectory } from '../linux/directory.ts';
import { ERRNO, fromSystemError, isErrno } from '../linux/errno.ts';
import type { Bytes } from '../linux/ffi.ts';
import { openDirectory, Stat, TYPE } from '../linux/files.ts';
import type { PartRule } from '../platform.ts';
import type { Cancellation } from './cancellation.ts';

const BLOCK_BYTES = 512;

/** What the rules say of one name, and of those below it. */
interface RuleNode {
  rule: PartRule | undefined;
  readonly below: Map<string, RuleNode>;
}

/** A directory to enter, with the part that its entries belong to. */
interface Entry {
  readonly name: Bytes;
  readonly part: string;
  readonly rules: RuleNode | undefined;
}

/**
 * What is allocated below and including `root`, by part: one walk, that goes only where the rules let it.
 * A file counts when all its names were met: one with a name that the rules keep the walk from is not of these
 * parts. Mounts inside are not entered and not counted.
 * @throws OpError NotFound
 */
export function measureParts(
  root: string,
  part: string,
  rules: ReadonlyMap<string, PartRule>,
  cancellation: Cancellation,
): ReadonlyMap<string, number> {
  try {
    using chain = new DirectoryChain(openDirectory(root));
    return new PartsMeasurement(chain, part, ruleTree(rules), cancellation).run();
  } catch (error) {
    throw fromSystemError(error, `measuring ${quote(root)}`);
  }
}

function ruleTree(rules: ReadonlyMap<string, PartRule>): RuleNode {
  const root: RuleNode = { rule: undefined, below: new Map() };
  for (const [path, rule] of rules) {
    let at = root;
    for (const name of path.split('/')) {
      const next = at.below.get(name) ?? { rule: undefined, below: new Map() };
      at.below.set(name, next);
      at = next;
    }
    at.rule = rule;
  }
  return root;
}

class PartsMeasurement {
  readonly #chain: DirectoryChain;
  readonly #part: string;
  readonly #rules: RuleNode;
  readonly #cancellation: Cancellation;
  readonly #stat = new Stat();
  /** How many names of a file were met, of those that have several. */
  readonly #names = new Map<string, number>();
  readonly #bytes = new Map<string, number>();

  constructor(chain: DirectoryChain, part: string, rules: RuleNode, cancellation: Cancellation) {
    this.#chain = chain;
    this.#part = part;
    this.#rules = rules;
    this.#cancellation = cancellation;
  }

  run(): ReadonlyMap<string, number> {
    this.#add(this.#part, this.#stat.readOpen(this.#chain.fd));
    const pending = [this.#readHere(this.#part, this.#rules)];
    for (let here = pending.at(-1); here !== undefined; here = pending.at(-1)) {
      const next = here.pop();
      if (next === undefined) {
        pending.pop();
        if (pending.length > 0) this.#chain.leave();
      } else if (this.#enter(next.name)) {
        pending.push(this.#readHere(next.part, next.rules));
      }
    }
    return this.#bytes;
  }

  /** @returns the directories to enter */
  #readHere(part: string, rules: RuleNode | undefined): Entry[] {
    const directories: Entry[] = [];
    readDirectory(this.#chain.fd, (name) => {
      this.#cancellation.check();
      const node = rules?.below.get(textOf(name));
      const { own, below } = node?.rule ?? { own: part, below: part };
      if (own === undefined && below === undefined) return true;
      if (this.#count(name, own) && below !== undefined) {
        directories.push({ name: Buffer.from(name), part: below, rules: node });
      }
      return true;
    });
    return directories;
  }

  /** @returns whether it is a directory that may be entered */
  #count(name: Bytes, part: string | undefined): boolean {
    try {
      this.#stat.readAt(this.#chain.fd, name);
    } catch (error) {
      if (isErrno(error, ERRNO.ENOENT)) return false;
      throw error;
    }
    if (this.#stat.isMountRoot) return false;
    const isDirectory = (this.#stat.mode & TYPE.mask) === TYPE.directory;
    if (!isDirectory && this.#stat.links > 1 && !this.#isLastName()) return false;
    if (part !== undefined) this.#add(part, this.#stat);
    return isDirectory;
  }

  #isLastName(): boolean {
    const { identity, links } = this.#stat;
    const met = (this.#names.get(identity) ?? 0) + 1;
    this.#names.set(identity, met);
    return met === links;
  }

  #add(part: string, { blocks }: Stat): void {
    this.#bytes.set(part, (this.#bytes.get(part) ?? 0) + blocks * BLOCK_BYTES);
  }

  #enter(name: Bytes): boolean {
    try {
      this.#chain.enter(name);
      return true;
    } catch (error) {
      if (isErrno(error, ERRNO.ENOENT, ERRNO.ENOTDIR, ERRNO.ELOOP, ERRNO.EXDEV)) return false;
      throw error;
    }
  }
}

const textOf = (name: Bytes): string => Buffer.from(name.subarray(0, -1)).toString();
