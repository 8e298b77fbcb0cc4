import type { Accounts } from '../../snapshotters/driver.ts';
import type { Mount, Usage } from '../../snapshotters/snapshotter.ts';
import { directoryOf, targetOf, type Target } from './target.ts';

/** Of layers that nobody has committed: those of snapshots that were removed go only so. */
const ACCOUNTS_MAX = 256;

interface Writing {
  writers: number;
  /** Another layer was written there at the same time: each would take the other's files for its own. */
  isShared: boolean;
}

/** What layers have put where, in memory: after a restart whoever wants to know walks. */
export class LayerAccounts implements Accounts {
  readonly #usages = new Map<string, Usage>();
  readonly #writing = new Map<string, Writing>();

  get isWriting(): boolean {
    return this.#writing.size > 0;
  }

  take(mounts: readonly Mount[]): Usage | undefined {
    const place = placeOf(targetOf(mounts));
    const usage = this.#usages.get(place);
    this.#usages.delete(place);
    return usage;
  }

  /** Runs what writes a layer into the target, and resolves with its outcome. */
  async during<T extends { readonly usage: Usage | undefined }>(
    target: Target,
    write: () => Promise<T>,
  ): Promise<T> {
    const place = placeOf(target);
    const writing = this.#writing.get(place) ?? { writers: 0, isShared: false };
    this.#writing.set(place, writing);
    if (++writing.writers > 1) writing.isShared = true;
    this.#usages.delete(place);
    try {
      const written = await write();
      if (written.usage !== undefined && !writing.isShared) this.#keep(place, written.usage);
      return written;
    } finally {
      if (--writing.writers === 0) this.#writing.delete(place);
    }
  }

  #keep(place: string, usage: Usage): void {
    for (const oldest of this.#usages.keys()) {
      if (this.#usages.size < ACCOUNTS_MAX) break;
      this.#usages.delete(oldest);
    }
    this.#usages.set(place, usage);
  }
}

/** The same for the same directory or mount. */
const placeOf = (target: Target): string => directoryOf(target) ?? JSON.stringify(target);
