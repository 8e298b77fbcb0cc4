import { OpError } from '../../base/errors.ts';
import type { Disk, Question } from '../../disk/disk.ts';
import { identityToWire, placeToWire, usageToWire } from '../convert/disk.ts';
import { ballast } from '../gen/wire.js';
import { unary, type Service } from '../service.ts';

const { v1 } = ballast;

export function diskService(disk: Disk): Service {
  return {
    name: 'ballast.v1.Disk',
    methods: {
      Usage: unary(v1.UsageRequest, v1.UsageResponse, async (ctx, { verbose }) =>
        usageToWire(await disk.usage(ctx, { verbose })),
      ),
      WhoIs: unary(v1.WhoIsRequest, v1.WhoIsResponse, async (ctx, { id, paths }) => ({
        identities: (await disk.whoIs(ctx, questionOf(id, paths))).map(identityToWire),
      })),
      Where: unary(v1.WhereRequest, v1.WhereResponse, async (ctx, { name }) => ({
        places: (await disk.where(ctx, name)).map(placeToWire),
      })),
    },
  };
}

/** @throws OpError InvalidArgument */
function questionOf(id: string, paths: readonly string[]): Question {
  if (id !== '') return { id };
  if (paths.length > 0 && paths.every((path) => path.startsWith('/'))) return { paths };
  throw new OpError('InvalidArgument', 'the request has neither an id nor absolute paths');
}
