import type { Gc } from '../../gc/gc.ts';
import { ballast, google } from '../gen/wire.js';
import { unary, type Service } from '../service.ts';

const { v1 } = ballast;
const { Empty } = google.protobuf;

export function gcService(gc: Gc): Service {
  return {
    name: 'ballast.v1.GC',
    methods: {
      Run: unary(Empty, v1.RunResponse, async (ctx) => {
        const { removed, busyMs } = await gc.run(ctx);
        return { removed: Array.from(removed, ([type, count]) => ({ type, count })), busyMs };
      }),
    },
  };
}
