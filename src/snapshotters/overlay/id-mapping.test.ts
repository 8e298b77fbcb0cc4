import { expect, test } from 'vitest';
import { GID_MAPPING, idMapping, UID_MAPPING } from './id-mapping.ts';

const map = (uid?: string, gid?: string) =>
  idMapping(
    new Map([
      ...(uid === undefined ? [] : [[UID_MAPPING, uid] as const]),
      ...(gid === undefined ? [] : [[GID_MAPPING, gid] as const]),
    ]),
  );

test('without the labels there is no mapping', () => {
  expect(map()).toBeUndefined();
});

test('the host ids of root are taken from whichever part maps id 0', () => {
  expect(map('5:1:2,0:77:5', '0:88:1')).toMatchObject({ uid: 77, gid: 88 });
});

test('a missing half maps one to one', () => {
  expect(map('0:1000:2000')).toMatchObject({ uid: 1000, gid: 0 });
});

test.each(['nonsense', '', '0:1', '0:1:2:3', '0:-1:5', '0:1:2,', '5:1000:2000', '0:1000:0'])(
  'the mapping "%s" is refused',
  (mapping) => {
    expect(() => map(mapping, '0:1:2')).toThrow(
      expect.objectContaining({ code: 'InvalidArgument' }),
    );
  },
);
