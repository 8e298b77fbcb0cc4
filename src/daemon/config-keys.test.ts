import { readFileSync } from 'node:fs';
import { parse } from 'smol-toml';
import { expect, test } from 'vitest';

import { CONFIG_KEYS, type ConfigKey } from './config-keys.ts';
import { drivers } from '../snapshotters/drivers.ts';
import { parseConfig } from './config.ts';

const docs = (name: string): string =>
  readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

/** How docs/configuration.md describes a key: one heading, one line of facts, the description. */
function section({ key, type, choices, default: preset, description }: ConfigKey): string {
  const kind = choices === undefined ? type : choices.map((choice) => `\`"${choice}"\``).join(', ');
  const facts = type === 'table' ? 'table' : `${kind} · default: ${presetText(preset)}`;
  return `### \`${key}\`\n\n${facts}\n\n${description}\n`;
}

const presetText = (preset: string | undefined): string =>
  preset === undefined ? 'none' : preset.startsWith('(') ? preset.slice(1, -1) : `\`${preset}\``;

test('docs/configuration.md describes each key as the daemon knows it, and no other', () => {
  const text = docs('configuration.md');
  const [, ours = ''] = /## Every key\n([^]*?)\n## /.exec(text) ?? [];
  expect(ours.trim()).toBe(CONFIG_KEYS.map(section).join('\n').trim());
});

test.for(['../packaging/config.toml', 'configuration.md'])(
  'the examples in docs/%s are configs that the daemon takes',
  (name) => {
    const text = docs(name);
    const examples = name.endsWith('.toml')
      ? [text]
      : [...text.matchAll(/```toml\n([^]*?)```/g)].map(([, example = '']) => example);
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) {
      expect(parse(example)).not.toEqual({});
      parseConfig(example, name, drivers);
    }
  },
);
