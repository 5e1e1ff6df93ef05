// `sluice sinks`: how each sink and handler is doing, from the gateway that runs, else from the files that it has left; and
// `forget`, which lets go of one that is gone for good.

import { join } from "node:path";
import type { Command } from "commander";
import type { GatewayConfig } from "../config/schema.ts";
import type { ConsumerStatus } from "../dispatch/dispatcher.ts";
import { openInbox } from "../dispatch/inbox.ts";
import { parkedInbox } from "../dispatch/parked.ts";
import { inboxName } from "../dispatch/protocol.ts";
import { removeCursor } from "../journal/cursor.ts";
import { statJournal } from "../journal/inspect.ts";
import type { JournalStat } from "../journal/inspect.ts";
import type { Offset } from "../reading.ts";
import { print, runExplained, showCount, toJson } from "./shell.ts";
import type { Shell } from "./shell.ts";

/** What is known without a gateway is little. */
type Row = Pick<ConsumerStatus, "name" | "position" | "lagRecords" | "lagBytes"> &
  Partial<Omit<ConsumerStatus, "kind" | "state">> & {
    readonly kind: string;
    readonly state: string;
    /** In parked.db now; `parked` counts since the gateway's start. */
    readonly parkedNow: number;
  };

const answerMs = 2_000;

export function addSinkCommands(program: Command, shell: Shell): void {
  const sinks = program.command("sinks").description("how sinks and handlers are doing, and how to forget one");
  sinks
    .command("list", { isDefault: true })
    .description("state, lag, rate, parked records and last error of each")
    .argument("[file]", "configuration file (default: config/gateway.ts)")
    .option("--json", "as JSON")
    .action((file: string | undefined, { json }: { readonly json?: boolean }) =>
      runExplained(shell, async () => {
        const config = await shell.load(file);
        if (config !== undefined) await list(shell, config, json === true);
      }),
    );
  sinks
    .command("forget")
    .description("delete the cursor of a sink or handler that is not configured any longer")
    .argument("<name>", "of the sink or handler")
    .argument("[file]", "configuration file (default: config/gateway.ts)")
    .action((name: string, file: string | undefined) =>
      runExplained(shell, async () => {
        const config = await shell.load(file);
        if (config !== undefined) await forget(shell, config, name);
      }),
    );
}

async function list(shell: Shell, config: GatewayConfig, json: boolean): Promise<void> {
  const journal = statJournal(join(config.dataDir, "journal"));
  const running = await askGateway(config, journal.id);
  if (running === undefined) {
    const { host, port } = config.http;
    shell.complain(`no gateway of ${config.dataDir} answers on ${host}:${port}: this is what its files tell`);
  }
  using parked = openInbox(join(config.dataDir, "parked.db"), parkedInbox);
  const rows = (running ?? toRows(config, journal)).map((row): Row => ({
    ...row,
    parkedNow: parked?.count({ sink: row.name }) ?? 0,
  }));
  await print(shell, json ? [toJson(rows)] : toTable(rows));
}

/** Its consumers; undefined: no gateway answers, or another one than that of the journal. */
async function askGateway({ http }: GatewayConfig, id: string): Promise<readonly ConsumerStatus[] | undefined> {
  const host = http.host.includes(":") ? `[${http.host}]` : http.host;
  try {
    const response = await fetch(`http://${host}:${http.port}/`, { signal: AbortSignal.timeout(answerMs) });
    const status = (await response.json()) as { gateway?: string; consumers?: readonly ConsumerStatus[] };
    return status.gateway === id ? status.consumers : undefined;
  } catch {
    return undefined;
  }
}

function toRows(config: GatewayConfig, { cursors, segments, end }: JournalStat): readonly Omit<Row, "parkedNow">[] {
  const kinds = new Map([
    ...config.sinks.map(({ name }) => [name, "sink"] as const),
    ...config.handlers.map(({ name }) => [name, "handler"] as const),
    ...(config.rejects.records > 0 ? [[inboxName, "inbox"] as const] : []),
  ]);
  const found = cursors.map(({ name, position, lag, damage }) => ({
    name,
    kind: kinds.get(name) ?? "unknown",
    state: damage === undefined ? (kinds.has(name) ? "not running" : "not configured") : `cursor not used: ${damage}`,
    position,
    lagRecords: lag,
    lagBytes: bytesFrom(position, segments),
  }));
  const missing = [...kinds].filter(([name]) => !cursors.some((cursor) => cursor.name === name));
  return [
    ...found,
    ...missing.map(([name, kind]) => ({
      name,
      kind,
      state: "never started",
      position: end,
      lagRecords: 0,
      lagBytes: 0,
    })),
  ];
}

/** In proportion within a segment. */
function bytesFrom(position: Offset, segments: JournalStat["segments"]): number {
  return segments.reduce((sum, { from, to, bytes }) => {
    const wanted = to - Math.max(position, from);
    return wanted > 0 && to > from ? sum + Math.round((bytes * wanted) / (to - from)) : sum;
  }, 0);
}

const columns: readonly (readonly [head: string, show: (row: Row) => string])[] = [
  ["NAME", ({ name }) => name],
  ["KIND", ({ kind }) => kind],
  ["STATE", ({ state }) => state],
  ["LAG", ({ lagRecords }) => String(lagRecords)],
  ["SECONDS", ({ lagSeconds }) => lagSeconds?.toFixed(1) ?? "-"],
  ["BYTES", ({ lagBytes }) => String(lagBytes)],
  ["RATE/S", ({ ratePerSecond }) => ratePerSecond?.toFixed(0) ?? "-"],
  ["ETA S", ({ etaSeconds }) => etaSeconds?.toFixed(0) ?? "-"],
  ["DELIVERED", ({ delivered }) => String(delivered ?? "-")],
  ["PARKED", ({ parkedNow }) => String(parkedNow)],
  ["ERRORS", ({ errors }) => (errors === undefined ? "-" : String(errors.transient + errors.misconfigured))],
];

function* toTable(rows: readonly Row[]): Generator<string, void> {
  const lines = [columns.map(([head]) => head), ...rows.map((row) => columns.map(([, show]) => show(row)))];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)));
  for (const [index, line] of lines.entries()) {
    yield `${line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd()}\n`;
    const { lastError } = rows[index - 1] ?? {};
    if (lastError !== undefined) yield `  last error: ${lastError}\n`;
  }
}

async function forget(shell: Shell, config: GatewayConfig, name: string): Promise<void> {
  const dir = join(config.dataDir, "journal");
  const refuse = (line: string): void => {
    shell.complain(line);
    shell.exitWith(1);
  };
  const isConfigured = [...config.sinks, ...config.handlers].some((one) => one.name === name);
  if (isConfigured || (name === inboxName && config.rejects.records > 0)) {
    return refuse(`${config.file} has ${name}: remove it there first, and start the gateway again`);
  }
  const journal = statJournal(dir);
  const running = await askGateway(config, journal.id);
  if (running?.some((one) => one.name === name && one.kind !== "unknown") === true) {
    return refuse(`the gateway that runs still has ${name}: start it again with the present configuration first`);
  }
  const cursor = journal.cursors.find((one) => one.name === name);
  if (cursor === undefined) {
    const names = journal.cursors.map((one) => one.name).join(", ");
    return refuse(`${dir} has no cursor of ${name}; it has: ${names === "" ? "none" : names}`);
  }
  removeCursor(join(dir, "cursors"), name);
  await print(shell, [`forgot ${name}: ${showCount(cursor.lag, "record")} will not be read for it\n`]);
  using parked = openInbox(join(config.dataDir, "parked.db"), parkedInbox);
  const count = parked?.count({ sink: name }) ?? 0;
  if (count > 0) {
    shell.complain(
      `${showCount(count, "record")} of it stay parked: \`sluice parked drop --sink ${name} --all\` deletes them`,
    );
  }
}
