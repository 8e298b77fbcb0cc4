import { OpError } from '../../base/errors.ts';

/** Asked between the steps of a job: cheap enough for every directory entry. */
export interface Cancellation {
  /** @throws OpError Canceled */
  check(): void;
}

export const never: Cancellation = { check: () => undefined };

export const canceled = (what: string): OpError =>
  new OpError('Canceled', `${what}: the caller gave up`);

/** One shared word, which another thread sets while this one works. */
export type CancelFlag = Int32Array<SharedArrayBuffer>;

export const makeCancelFlag = (): CancelFlag => new Int32Array(new SharedArrayBuffer(4));

export const raise = (flag: CancelFlag): void => {
  Atomics.store(flag, 0, 1);
};

export const cancellationOf = (flag: CancelFlag, what: string): Cancellation => ({
  check: () => {
    if (Atomics.load(flag, 0) !== 0) throw canceled(what);
  },
});
