import { GcProxy } from '../../../grpc/proxy/gc.ts';
import type { Asked } from '../address.ts';
import { ask } from '../ask.ts';
import type { Programs } from '../programs.ts';

/** @throws OpError as `ask` */
export async function runGc(asked: Asked, programs: Programs): Promise<void> {
  const { removed, busyMs } = await ask(asked, programs, (calls, ctx) =>
    new GcProxy(calls).run(ctx),
  );
  const counts = Array.from(removed, ([type, count]) => `${count} ${type}`);
  const what = counts.length === 0 ? 'nothing' : counts.join(', ');
  programs.out(`removed ${what}, in ${busyMs.toFixed(1)} ms\n`);
}
