import type { Node } from '../../gc/collectible.ts';
import type { Chain, Explanation, PlanPart, Totals } from '../../gc/gc.ts';
import type { ballast } from '../gen/wire.js';
import { labelsFromWire, labelsToWire } from './labels.ts';
import { timestampFromWire, timestampToWire, type WireTimestamp } from './timestamps.ts';

type WireNode = ballast.v1.Node.$Properties;
type WireChain = ballast.v1.Chain.$Properties;
type WireTotal = ballast.v1.Total.$Properties;
type WhyResponse = ballast.v1.WhyResponse.$Properties;
type PlanResponse = ballast.v1.PlanResponse.$Properties;

export const explanationToWire = (explanation: Explanation): WhyResponse => ({
  node: explanation.node,
  chains: explanation.chains.map(chainToWire),
  notBefore: optionalToWire(explanation.notBefore),
  collector: explanation.collector,
});

export const explanationFromWire = (response: WhyResponse): Explanation => ({
  node: nodeFromWire(response.node),
  chains: (response.chains ?? []).map(chainFromWire),
  notBefore: optionalFromWire(response.notBefore),
  collector: response.collector ?? '',
});

const chainToWire = (chain: Chain): WireChain => ({
  kind: chain.kind,
  createdAt: timestampToWire(chain.createdAt),
  expiresAt: optionalToWire(chain.expiresAt),
  labels: labelsToWire(chain.labels),
  links: [...chain.links],
  omitted: chain.omitted,
});

const chainFromWire = (chain: WireChain): Chain => ({
  kind: chain.kind ?? '',
  createdAt: timestampFromWire(chain.createdAt),
  expiresAt: optionalFromWire(chain.expiresAt),
  labels: labelsFromWire(chain.labels ?? {}),
  links: (chain.links ?? []).map(({ node, by }) => ({ node: nodeFromWire(node), by: by ?? '' })),
  omitted: chain.omitted ?? 0,
});

export const planToWire = (part: PlanPart): PlanResponse =>
  'goes' in part
    ? { goes: [...part.goes] }
    : { totals: totalsToWire(part.totals), without: [...part.without] };

/** Only the last message may have no objects. */
export const planFromWire = ({ goes = [], totals, without }: PlanResponse): PlanPart =>
  (goes ?? []).length > 0
    ? {
        goes: (goes ?? []).map(({ node, bytes }) => ({
          node: nodeFromWire(node),
          bytes: bytes ?? 0,
        })),
      }
    : {
        totals: totalsFromWire(totals),
        without: (without ?? []).map(({ node, unique, shared }) => ({
          node: nodeFromWire(node),
          unique: unique ?? 0,
          shared: shared ?? 0,
        })),
      };

export const totalsToWire = (totals: Totals): WireTotal[] =>
  Array.from(totals, ([type, { count, bytes }]) => ({ type, count, bytes }));

export const totalsFromWire = (totals: WireTotal[] | null | undefined): Totals =>
  new Map(
    (totals ?? []).map(({ type, count, bytes }) => [
      type ?? '',
      { count: count ?? 0, bytes: bytes ?? 0 },
    ]),
  );

const optionalToWire = (time: bigint | undefined): WireTimestamp | null =>
  time === undefined ? null : timestampToWire(time);
const optionalFromWire = (time: WireTimestamp | null | undefined): bigint | undefined =>
  time ? timestampFromWire(time) : undefined;

const nodeFromWire = (node: WireNode | null | undefined): Node => ({
  type: node?.type ?? '',
  namespace: node?.namespace ?? '',
  key: node?.key ?? '',
});
