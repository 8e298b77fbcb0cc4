interface Call<In, Out> {
  readonly input: In;
  readonly resolve: (value: Out) => void;
  readonly reject: (error: unknown) => void;
}

/** Settles one call of a group; a failure may be this call's alone. */
export type Outcome<Out> = { readonly value: Out } | { readonly error: Error };

/**
 * Joins calls that come together: while one group is at work, the calls that come in form the next one.
 */
export class Grouped<In, Out> {
  readonly #run: (group: readonly In[]) => Promise<readonly Outcome<Out>[]>;
  readonly #sizeMax: number;
  #waiting: Call<In, Out>[] = [];
  #working = false;

  /** `run` returns one outcome for each input, in order; when it rejects, all calls of the group do. */
  constructor(sizeMax: number, run: (group: readonly In[]) => Promise<readonly Outcome<Out>[]>) {
    this.#sizeMax = sizeMax;
    this.#run = run;
  }

  call(input: In): Promise<Out> {
    if (!this.#working) {
      this.#working = true;
      // Calls that arrived in one turn of the event loop share their group from the first one on.
      setImmediate(() => void this.#work());
    }
    return new Promise((resolve, reject) => this.#waiting.push({ input, resolve, reject }));
  }

  async #work(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0, this.#sizeMax);
      await this.#settle(group);
    }
    this.#working = false;
  }

  async #settle(group: readonly Call<In, Out>[]): Promise<void> {
    try {
      const outcomes = await this.#run(group.map(({ input }) => input));
      group.forEach(({ resolve, reject }, index) => {
        const outcome = outcomes[index];
        if (outcome === undefined) reject(new Error(`a group left call ${index} unanswered`));
        else if ('error' in outcome) reject(outcome.error);
        else resolve(outcome.value);
      });
    } catch (error) {
      for (const { reject } of group) reject(error);
    }
  }
}

/** Groups that must not wait for each other, such as those of several disks, by name. */
export class GroupedByName<In, Out> {
  readonly #sizeMax: number;
  readonly #run: (name: string, group: readonly In[]) => Promise<readonly Outcome<Out>[]>;
  readonly #groups = new Map<string, { readonly grouped: Grouped<In, Out>; calls: number }>();

  constructor(
    sizeMax: number,
    run: (name: string, group: readonly In[]) => Promise<readonly Outcome<Out>[]>,
  ) {
    this.#sizeMax = sizeMax;
    this.#run = run;
  }

  async call(name: string, input: In): Promise<Out> {
    let entry = this.#groups.get(name);
    if (entry === undefined) {
      const grouped = new Grouped<In, Out>(this.#sizeMax, (group) => this.#run(name, group));
      entry = { grouped, calls: 0 };
      this.#groups.set(name, entry);
    }
    entry.calls++;
    try {
      return await entry.grouped.call(input);
    } finally {
      if (--entry.calls === 0) this.#groups.delete(name);
    }
  }
}
