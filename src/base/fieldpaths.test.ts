import { expect, test } from 'vitest';
import { updateLabels } from './fieldpaths.ts';

const map = (object: Record<string, string>): Map<string, string> =>
  new Map(Object.entries(object));
const current = map({ a: '1', b: '2', 'x.y/z': '3' });

test('without a path all labels are replaced', () => {
  expect(updateLabels(current, map({ c: '9' }), [])).toEqual(map({ c: '9' }));
  expect(updateLabels(current, map({}), [])).toEqual(map({}));
});

test('the path labels replaces all labels', () => {
  expect(updateLabels(current, map({ c: '9' }), ['labels'])).toEqual(map({ c: '9' }));
});

test('a path to one label sets that one only', () => {
  expect(updateLabels(current, map({ a: '9', b: '9' }), ['labels.a'])).toEqual(
    map({ a: '9', b: '2', 'x.y/z': '3' }),
  );
});

test('a label key may hold dots and slashes', () => {
  expect(updateLabels(current, map({ 'x.y/z': '9' }), ['labels.x.y/z']).get('x.y/z')).toBe('9');
});

test('a path to a label that is not given, or given empty, deletes it', () => {
  expect(updateLabels(current, map({}), ['labels.a', 'labels.b'])).toEqual(map({ 'x.y/z': '3' }));
  expect(updateLabels(current, map({ a: '' }), ['labels.a']).has('a')).toBe(false);
});

test('labels with empty values are not stored', () => {
  expect(updateLabels(current, map({ a: '', b: '9' }), [])).toEqual(map({ b: '9' }));
});

test('names of Object members are labels like any other', () => {
  const labels = new Map([['__proto__', '1']]);
  expect(updateLabels(current, labels, ['labels.__proto__']).get('__proto__')).toBe('1');
});

test('any other path is refused, and what is current is left alone', () => {
  for (const path of ['parent', 'kind', 'name', '', 'label', 'Labels', 'labels ', 'digest']) {
    expect(() => updateLabels(current, map({ a: '9' }), ['labels.a', path])).toThrow(
      expect.objectContaining({ code: 'InvalidArgument' }),
    );
  }
  expect(current).toEqual(map({ a: '1', b: '2', 'x.y/z': '3' }));
});
