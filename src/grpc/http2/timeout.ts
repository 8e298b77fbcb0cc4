/** Milliseconds per unit of the header grpc-timeout. */
const UNITS: ReadonlyMap<string, number> = new Map([
  ['H', 3_600_000],
  ['M', 60_000],
  ['S', 1000],
  ['m', 1],
  ['u', 1e-3],
  ['n', 1e-6],
]);
/** What a timer can hold: 24 days. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Of the header grpc-timeout; undefined for one that is none, which means no deadline. */
export function timeoutMs(header: string): number | undefined {
  const [, digits, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(header) ?? [];
  const ms = Number(digits) * (UNITS.get(unit) ?? Number.NaN);
  return Number.isNaN(ms) ? undefined : Math.min(ms, TIMER_MS_MAX);
}
