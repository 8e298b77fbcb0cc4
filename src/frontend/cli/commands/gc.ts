import type { Explanation, Goes } from '../../../gc/gc.ts';
import { GcProxy } from '../../../grpc/proxy/gc.ts';
import { ask } from '../ask.ts';
import type { GcAsked, PlanAsked } from '../gc.ts';
import type { Programs } from '../programs.ts';
import { explanationText, goesText, jsonText, planText, runText } from '../render/gc.ts';

/** @throws OpError as `ask` */
export async function whyGc(name: string, asked: GcAsked, programs: Programs): Promise<void> {
  const explanations: Explanation[] = [];
  await ask(asked, programs, async (calls, ctx) => {
    for await (const each of new GcProxy(calls).why(ctx, name)) explanations.push(each);
  });
  if (asked.json === true) programs.out(jsonText(explanations));
  else programs.out(explanations.map((each) => explanationText(each, Date.now())).join('\n'));
}

/** @throws OpError as `ask` */
export async function planGc(asked: PlanAsked, programs: Programs): Promise<void> {
  const all: Goes[] = [];
  await ask(asked, programs, async (calls, ctx) => {
    for await (const part of new GcProxy(calls).plan(ctx, asked.without ?? [])) {
      if (!('goes' in part)) {
        const { totals, without } = part;
        programs.out(
          asked.json === true ? jsonText({ goes: all, totals, without }) : planText(part),
        );
      } else if (asked.json === true) all.push(...part.goes);
      else programs.out(part.goes.map(goesText).join(''));
    }
  });
}

/** @throws OpError as `ask` */
export async function runGc(asked: GcAsked, programs: Programs): Promise<void> {
  const summary = await ask(asked, programs, (calls, ctx) => new GcProxy(calls).run(ctx));
  programs.out(asked.json === true ? jsonText(summary) : runText(summary));
}
