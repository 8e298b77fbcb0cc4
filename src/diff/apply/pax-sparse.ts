import { quote } from '../../base/errors.ts';
import { TarFault } from './tar-fault.ts';

import { copyOf, decimal, digits, textOf, type PaxRecords, type PaxValues } from './pax-records.ts';

/** GNU tar manual, "Storing Sparse Files", PAX formats 0.0, 0.1 and 1.0. */
export interface PaxSparse {
  /** Whether the map is in front of the stored bytes (1.0) or here. */
  readonly isMapStored: boolean;
  readonly name: Buffer | undefined;
  readonly fileBytes: number | undefined;
  /** Offset and length of each region, in turn. */
  readonly map: readonly number[];
}

/**
 * What records say of a file with holes.
 * @throws TarFault an unknown version, or a map that is none
 */
export function sparseOf({ values, pairs }: PaxRecords): PaxSparse | undefined {
  const version = versionOf(values, pairs);
  if (version === undefined) return undefined;
  const isMapStored = version === '1.0';
  return {
    isMapStored,
    name: copyOf(values.get('GNU.sparse.name')),
    fileBytes: decimal(values, 'GNU.sparse.size') ?? decimal(values, 'GNU.sparse.realsize'),
    map: isMapStored ? [] : mapOf(values, pairs),
  };
}

/** The first formats had no version. */
function versionOf(values: PaxValues, pairs: readonly number[]): string | undefined {
  const major = textOf(values, 'GNU.sparse.major');
  const minor = textOf(values, 'GNU.sparse.minor');
  if (major === undefined && minor === undefined) {
    return pairs.length > 0 || textOf(values, 'GNU.sparse.map') !== undefined ? '0.1' : undefined;
  }
  const version = `${major}.${minor}`;
  if (VERSIONS.includes(version)) return version;
  throw new TarFault(`it is sparse in version ${quote(version)}, which is unknown`);
}

const VERSIONS: readonly string[] = ['0.0', '0.1', '1.0'];

function mapOf(values: PaxValues, pairs: readonly number[]): readonly number[] {
  const text = textOf(values, 'GNU.sparse.map');
  const map =
    pairs.length > 0 || text === undefined
      ? pairs
      : text.split(',').map((each) => digits(each, 'sparse map'));
  if (map.length !== 2 * (decimal(values, 'GNU.sparse.numblocks') ?? 0)) {
    throw new TarFault('its sparse map has another number of regions than it says');
  }
  return map;
}
