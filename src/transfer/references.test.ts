import { expect, test } from 'vitest';
import { isOpError } from '../base/errors.ts';
import { familiarReference, normalizedReference, ociReferenceName } from './references.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

test('what Docker calls an image has one whole name', () => {
  for (const [text, whole] of [
    ['alpine', 'docker.io/library/alpine:latest'],
    ['alpine:3', 'docker.io/library/alpine:3'],
    ['some/image', 'docker.io/some/image:latest'],
    ['docker.io/alpine', 'docker.io/library/alpine:latest'],
    ['index.docker.io/some/image:1', 'docker.io/some/image:1'],
    ['localhost/image', 'localhost/image:latest'],
    ['example.invalid:5000/a/b__c:T-1', 'example.invalid:5000/a/b__c:T-1'],
    ['Example/image', 'Example/image:latest'],
    ['[::1]:5000/image', '[::1]:5000/image:latest'],
    [`example.invalid/image@${DIGEST}`, `example.invalid/image@${DIGEST}`],
    // The digest says it all.
    [`example.invalid/image:1@${DIGEST}`, `example.invalid/image@${DIGEST}`],
  ] as const) {
    expect([text, normalizedReference(text)]).toEqual([text, whole]);
  }
});

test('what is no reference is refused', () => {
  const bad = [
    '',
    'Upper',
    'a b',
    'a//b',
    'a:',
    'a@',
    ':1',
    'a:-1',
    'a@sha256:1',
    '-a.invalid/b',
    'a.invalid/',
    'a___b',
    'a'.repeat(256),
    `a:${'b'.repeat(129)}`,
    'f'.repeat(64),
  ];
  for (const text of bad) {
    let thrown: unknown;
    try {
      normalizedReference(text);
    } catch (error) {
      thrown = error;
    }
    expect([text, isOpError(thrown, 'InvalidArgument')]).toEqual([text, true]);
  }
});

test('Docker calls a whole name as its users do', () => {
  for (const [whole, familiar] of [
    ['docker.io/library/alpine:latest', 'alpine:latest'],
    ['docker.io/library/alpine', 'alpine:latest'],
    ['docker.io/library/a/b:1', 'library/a/b:1'],
    ['docker.io/some/image:1', 'some/image:1'],
    ['example.invalid/image:1', 'example.invalid/image:1'],
    [`example.invalid/image@${DIGEST}`, `example.invalid/image@${DIGEST}`],
    [`example.invalid/image:1@${DIGEST}`, `example.invalid/image:1@${DIGEST}`],
  ] as const) {
    expect([whole, familiarReference(whole)]).toEqual([whole, familiar]);
  }
});

test('the name within an OCI layout is the tag or the digest', () => {
  for (const [name, within] of [
    ['example.invalid/image:1', '1'],
    ['example.invalid:5000/image:1', '1'],
    ['example.invalid/image', ''],
    ['image', ''],
    // No port: so it is no URL, and stays whole.
    ['image:latest', 'image:latest'],
    [`example.invalid/image@${DIGEST}`, `@${DIGEST}`],
    [`example.invalid/image:1@${DIGEST}`, `1@${DIGEST}`],
  ] as const) {
    expect([name, ociReferenceName(name)]).toEqual([name, within]);
  }
});
