/** What one request carries; passed first and explicitly, as Go passes ctx. */
export interface RequestContext {
  /** Aborted when the client cancels, its deadline passes or the connection is lost. */
  readonly signal: AbortSignal;
  readonly namespace: string | undefined;
  readonly leaseId: string | undefined;
}

/** For work that no request asked for: start-up, tests. */
export const background: RequestContext = {
  signal: new AbortController().signal,
  namespace: undefined,
  leaseId: undefined,
};
