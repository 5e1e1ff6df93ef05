// docs/conformance.md names a test that exists, and passes, or a reason for every normative statement.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

interface Row {
  readonly clause: string;
  readonly cell: string;
}

const page = readFileSync(join(import.meta.dirname, "../docs/conformance.md"), "utf8");

/** How many statements each section has. MQTT 5 has none of the number 2.2.1-1. */
const sections5 =
  "1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13 3.3.2:20 " +
  "3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 " +
  "3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2.0:1 4.3.1:1 4.3.2:5 4.3.3:13 " +
  "4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4";
const sections311 =
  "1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 3.3.4:1 3.3.5:2 3.6.1:1 3.8.1:1 " +
  "3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 3.14.1:1 3.14.4:3 4.1.0:2 4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 " +
  "4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1";

const toClauses = (sections: string): readonly string[] =>
  sections
    .split(" ")
    .flatMap((entry) => {
      const [section = "", count] = entry.split(":");
      return Array.from({ length: Number(count) }, (_, index) => `${section}-${index + 1}`);
    })
    .filter((clause) => clause !== "2.2.1-1");

function readSection(title: string): { readonly rows: readonly Row[]; readonly clientsOnly: readonly string[] } {
  const text = page.split(/^## /m).find((part) => part.startsWith(`${title}\n`)) ?? "";
  const rows = [...text.matchAll(/^\| \[MQTT-([\d.-]+)\] \| [^|]+ \| ([^|]+) \|$/gm)];
  const clients = /^Statements that concern clients only: (.*)\.$/m.exec(text)?.[1] ?? "";
  return { rows: rows.map(([, clause = "", cell = ""]) => ({ clause, cell })), clientsOnly: clients.split(", ") };
}

const sources = new Map<string, string>();
function sourceOf(file: string): string {
  const path = join(import.meta.dirname, file);
  let source = sources.get(file);
  if (source === undefined) sources.set(file, (source = existsSync(path) ? readFileSync(path, "utf8") : ""));
  return source;
}

/** What is wrong with one entry of a row: a test as "`file` › name", or a sentence that begins with why there is none. */
function problemOf(entry: string): string | undefined {
  const named = /^`([^`]+)` › (.*)$/.exec(entry);
  if (named === null) {
    return /^(Not applicable|Not held|Held|By construction)\b/.test(entry)
      ? undefined
      : `no test and no reason: ${entry}`;
  }
  const [, file = "", name = ""] = named;
  const source = sourceOf(file);
  const quoted = [JSON.stringify(name), `'${name}'`, `\`${name}\``].map((literal) => source.indexOf(literal));
  const at = Math.max(...quoted);
  if (at < 0) return `${file} has no test "${name}"`;
  const call = [...source.slice(0, at).matchAll(/\btest[.\w]*\(/g)].at(-1)?.[0] ?? "";
  return /fails|todo|skip/.test(call) ? `${file} expects "${name}" to fail` : undefined;
}

describe.for([
  ["MQTT 5", sections5],
  ["MQTT 3.1.1", sections311],
] as const)("docs/conformance.md, %s", ([title, sections]) => {
  const { rows, clientsOnly } = readSection(title);

  test("has each statement once, in a row or among those of clients", () => {
    const written = [...rows.map(({ clause }) => clause), ...clientsOnly];
    expect(written.toSorted()).toEqual(toClauses(sections).toSorted());
  });

  test("names tests that exist and pass, or says why there is none", () => {
    const problems = rows.flatMap(({ clause, cell }) =>
      cell.split("<br>").flatMap((entry) => {
        const problem = problemOf(entry);
        return problem === undefined ? [] : [`[MQTT-${clause}] ${problem}`];
      }),
    );
    expect(problems).toEqual([]);
  });
});
