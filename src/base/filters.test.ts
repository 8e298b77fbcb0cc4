import { check, property, string, stringMatching } from 'fast-check';
import { expect, test } from 'vitest';
import { parseFilter } from './filter-grammar.ts';
import { adaptContent, adaptSnapshot, adaptStatus, compileFilters } from './filters.ts';

const snapshot = adaptSnapshot({
  name: 'ns/1/web "x"',
  parent: 'sha256:abc',
  kind: 'active',
  labels: new Map([
    ['a.b', '1'],
    ['containerd.io/snapshot.ref', 'sha256:def'],
    ['__proto__', 'p'],
    ['path', '/usr/lib'],
    ['é', 'ü'],
  ]),
});

const matches = async (...filters: string[]): Promise<boolean> =>
  (await compileFilters(filters))(snapshot);

const MATCHING = [
  '',
  'name',
  'parent',
  'kind==active',
  ' kind == active',
  '\tkind\n!=\u00a0view',
  'kind==active,parent==sha256:abc',
  'kind==active, parent==sha256:abc',
  'name=="ns/1/web \\"x\\""',
  'kind=="\\x61ctive"',
  'kind=="\\141ctiv\\u0065"',
  'kind=="a\\U00000063tive"',
  'kind.of.anything==active',
  'labels.a.b==1',
  'labels."a.b"==1',
  'labels."a"."b"==1',
  'labels. a. b==1',
  'labels."containerd.io/snapshot.ref"==sha256:def,parent=="sha256:abc"',
  'labels.__proto__==p',
  'labels."\\xc3\\xa9"==ü',
  'labels."\\u00e9"~=ü',
  'labels.path~=/^\\/usr/',
  'labels.path~=|^/usr|',
  'labels.path~="^/usr"',
  'labels.none!=x',
  'none!=x',
  '42!=x',
  'kind~=^act',
  'kind~=(?i)ACT',
  'kind~=/\\\\Aact(?P<rest>i.e)\\\\z/',
  'kind~=\\pL+',
  'none~=^$',
  'labels."\\xff"!=x',
];

const NOT_MATCHING = [
  'kind==Active',
  'kind==committed',
  'none',
  'labels',
  'labels.a',
  'labels.constructor',
  'labels.toString',
  'labels.none==x',
  'none==""',
  'none!=""',
  'kind=="active "',
  'kind==active,parent==x',
  'kind~=(unclosed',
  'kind~=a(?=ct)',
  'kind~=(a)\\1',
  'kind~="\\xff"',
  'labels."\\xff"',
];

const MALFORMED = [
  ' ',
  ',',
  'kind==',
  'kind=active',
  'kind===active',
  'kind==!active',
  'kind==active ',
  'kind ',
  'kind==active,',
  'kind==active , parent==x',
  'kind==active parent==x',
  'kind=="active"x',
  '==active',
  '.kind',
  'kind.',
  'kind.==x',
  'kind .x==1',
  'labels.a-b==1',
  'labels.a/b==1',
  'name==/x/',
  'name==|x|',
  '/name/==x',
  'name==.x',
  'name==/x',
  "'name'==x",
  'name=="x',
  'name=="x\ny"',
  'name=="\\q"',
  'name=="\\/"',
  'name=="\\xg0"',
  'name=="\\400"',
  'name=="\\12"',
  'name=="\\U00110000"',
  'name~=/\\d/',
  'name==a\0b',
  'name==a\u{fffd}',
  '\u{fffd}==a',
  'né==a',
];

test.each(MATCHING)('%j matches', async (filter) => {
  expect(await matches(filter)).toBe(true);
});

test.each(NOT_MATCHING)('%j does not match', async (filter) => {
  expect(await matches(filter)).toBe(false);
});

test.each(MALFORMED)('%j is malformed', async (filter) => {
  await expect(compileFilters([filter])).rejects.toMatchObject({ code: 'InvalidArgument' });
  await expect(compileFilters(['', filter])).rejects.toMatchObject({ code: 'InvalidArgument' });
});

test('an object passes if any of several filters matches, or if there are none', async () => {
  expect(await matches()).toBe(true);
  expect(await matches('kind==view', 'kind==active')).toBe(true);
  expect(await matches('kind==view', '')).toBe(true);
  expect(await matches('kind==view', 'kind==committed')).toBe(false);
});

test('a blob has a digest and labels, and a size that never matches', async () => {
  const blob = adaptContent({ digest: 'sha256:abc', labels: new Map([['a', '1']]) });
  expect((await compileFilters(['digest==sha256:abc,labels.a==1']))(blob)).toBe(true);
  expect((await compileFilters(['size', 'size==3', 'labels.b']))(blob)).toBe(false);
});

test('an ingest has a ref', async () => {
  expect((await compileFilters(['ref~=^layer']))(adaptStatus({ ref: 'layer-1' }))).toBe(true);
});

test('any text survives quoting, as a value and as a field', () => {
  const goQuoted = (text: string): string =>
    `"${text.replace(/[\\"\n\0\u{fffd}]/gu, (c) => `\\U${c.codePointAt(0)?.toString(16).padStart(8, '0')}`)}"`;
  const holds = check(
    property(string({ unit: 'binary' }), (text) => {
      const [selector] = parseFilter(`labels.${goQuoted(text)}==${goQuoted(text)}`);
      expect(selector).toEqual({ fieldpath: ['labels', text], operator: '==', value: text });
    }),
  );
  expect(holds.counterexample).toBeNull();
});

test('whatever is thrown at the parser, it answers or says InvalidArgument', () => {
  const pieces = stringMatching(/^([a-z."/|\\=!~, x0-9\n\0]|==|~=){0,40}$/);
  const holds = check(
    property(pieces, (text) => {
      try {
        parseFilter(text);
      } catch (error) {
        expect(error).toMatchObject({ code: 'InvalidArgument' });
      }
    }),
    { numRuns: 2000 },
  );
  expect(holds.counterexample).toBeNull();
});

test('patterns that make backtracking engines hang are answered at once', async () => {
  const long = adaptStatus({ ref: `${'a'.repeat(4000)}!` });
  const started = performance.now();
  for (const pattern of ['(a+)+$', '(a|aa)+$', '(a|a|b?)+c', '(.*a){20}$']) {
    expect((await compileFilters([`ref~=/${pattern}/`]))(long)).toBe(false);
  }
  expect(performance.now() - started).toBeLessThan(2000);
});

test('a pattern or a filter that is too large is refused', async () => {
  await expect(compileFilters(['ref~=/a{1000}b{1000}c{1000}/'])).rejects.toMatchObject({
    code: 'InvalidArgument',
  });
  await expect(compileFilters(['a,'.repeat(1 << 20)])).rejects.toMatchObject({
    code: 'InvalidArgument',
  });
});

test('a call whose patterns keep the daemon busy is refused', async () => {
  const filters = Array.from(
    { length: 5000 },
    (_, index) => `ref~=/(?:a?){1000}b{${index % 999}}/`,
  );
  await expect(compileFilters(filters)).rejects.toMatchObject({ code: 'InvalidArgument' });
});
