/** A plugin as Introspection tells of it. */
export interface PluginFact {
  readonly type: string;
  readonly id: string;
  readonly capabilities: readonly string[];
  /** Where a proxy plugin's calls go; containerd 1.6 does not say. */
  readonly address: string | undefined;
  /** Why it is not available. */
  readonly error: string | undefined;
}

export interface ContainerFact {
  readonly id: string;
  readonly snapshotter: string;
  readonly snapshotKey: string;
}

/** What containerd's own records say of one namespace. */
export interface NamespaceFacts {
  readonly name: string;
  /** Labels by digest. */
  readonly blobs: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** Keys and names by snapshotter, for the snapshotters that are ours. */
  readonly snapshots: ReadonlyMap<string, ReadonlySet<string>>;
  readonly containers: readonly ContainerFact[];
}

export interface ContainerdFacts {
  readonly version: string;
  readonly plugins: readonly PluginFact[];
  readonly namespaces: readonly NamespaceFacts[];
}

/** What our plugin socket says. */
export interface BallastFacts {
  readonly version: string;
  readonly socket: string;
  readonly plugins: readonly PluginFact[];
  readonly blobs: ReadonlySet<string>;
  /** As containerd named them to us, by snapshotter: `NAMESPACE/NUMBER/KEY`. */
  readonly snapshots: ReadonlyMap<string, ReadonlySet<string>>;
}

export const SNAPSHOTTER_TYPE = 'io.containerd.snapshotter.v1';
export const CONTENT_TYPE = 'io.containerd.content.v1';
