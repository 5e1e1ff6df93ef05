// What every page is made of: one HTML file that loads nothing from elsewhere.

import { readFile } from "node:fs/promises";
import { escapeHtml, type Chart, type Lane, type TimeAxis } from "./chart.ts";

/** `body` is HTML, all else plain text. */
export interface Frame {
  readonly title: string;
  readonly subtitle: string;
  /** With the charts and lanes below, in their order. */
  readonly body: string;
  readonly charts: readonly Chart[];
  readonly lanes: readonly Lane[];
  readonly axis: TimeAxis;
}

/** Resolves to the text of the file. */
export async function toDocument({ title, subtitle, body, charts, lanes, axis }: Frame): Promise<string> {
  const [style, script] = await Promise.all([asset("page.css"), asset("page.js")]);
  const values = {
    atMs: axis.atMs,
    endMs: axis.endMs,
    charts: charts.map(({ series }) => series.map((line) => line.values)),
    lanes: lanes.map(({ counts }) => counts),
  };
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>
${style}</style>
<header>
<h1>${escapeHtml(title)}</h1>
<p>${escapeHtml(subtitle)}</p>
</header>
${body}
<script type="application/json" id="values">${toScriptJson(values)}</script>
<script>
${script}</script>
</html>
`;
}

const asset = (name: string): Promise<string> => readFile(new URL(name, import.meta.url), "utf8");

/** Nothing in it can end the script element. */
const toScriptJson = (value: object): string => JSON.stringify(value).replaceAll("<", "\\u003c");

/** `2026-11-29 08:12 UTC`. */
export const toMinute = (timeMs: number): string =>
  `${new Date(timeMs).toISOString().slice(0, 16).replace("T", " ")} UTC`;

export const toVerdictLine = (sentences: readonly string[], isGood: boolean): string =>
  sentences.length === 0
    ? ""
    : `<p class="verdict" style="--color: var(--${isGood ? "good" : "bad"})">${sentences.join(" ")}</p>`;

export type Figure = readonly [name: string, figure: string, note: string];

export function toFigureList(figures: readonly Figure[]): string {
  const items = figures.map(
    ([name, figure, note]) =>
      `<div><dt>${name}</dt><dd>${escapeHtml(figure)} <small>${escapeHtml(note)}</small></dd></div>`,
  );
  return `<dl class="figures">${items.join("\n")}</dl>`;
}
