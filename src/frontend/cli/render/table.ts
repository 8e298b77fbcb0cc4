/** A column by its heading; numbers are to the right. */
export interface Column {
  readonly heading: string;
  readonly right?: boolean;
}

/** Columns two spaces apart, the headings first. */
export const table = (columns: readonly Column[], rows: readonly (readonly string[])[]): string =>
  lines([columns.map(({ heading }) => heading), ...rows], (at) => columns[at]?.right === true);

/** A line for each row. */
export function lines(
  rows: readonly (readonly string[])[],
  isRight: (column: number) => boolean = () => false,
): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, text] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, text.length);
  }
  const cell = (text: string, at: number): string =>
    isRight(at) ? text.padStart(widths[at] ?? 0) : text.padEnd(widths[at] ?? 0);
  return rows.map((row) => `${row.map(cell).join('  ').trimEnd()}\n`).join('');
}
