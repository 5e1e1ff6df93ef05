import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { parseTarget, type Target } from "../../../devices-sim/verify/target.ts";
import { toVerificationText } from "../../../devices-sim/verify/report.ts";
import { verify } from "../../../devices-sim/verify/verify.ts";
import { test } from "../../fixtures.ts";
import { acknowledged, ledgerOf, sentLine, message, type Sent } from "../ledger/fixtures.ts";

function targetOf(text: string): Target {
  const target = parseTarget(text);
  if (target === undefined) throw new TypeError(text);
  return target;
}

const documentsOf = (sent: readonly Sent[], from = 0): string =>
  sent
    .map(
      ({ payload, at }, index) =>
        `{"gateway":"g","offset":${from + index},"stream":"s","device":"sim-1","receivedAt":${at},"data":${payload}}\n`,
    )
    .join("");

test("waits for a sink that is behind", async ({ dir }) => {
  const { sent, lines } = acknowledged(9);
  await ledgerOf(join(dir, "ledger"), lines);
  const path = join(dir, "out.log");
  await writeFile(path, documentsOf(sent.slice(0, 3)));
  const parts = [sent.slice(3, 6), sent.slice(6)];
  const timer = setInterval(() => {
    const part = parts.shift();
    if (part !== undefined) void appendFile(path, documentsOf(part, part[0]?.seq));
  }, 400);
  const verification = await verify({
    dir: join(dir, "ledger"),
    targets: [targetOf(`ndjson:${path}`)],
    waitMs: 60_000,
  });
  clearInterval(timer);
  expect(verification).toMatchObject({ kept: true, sinks: [{ acknowledged: 9, found: 9, lost: 0 }] });
});

test("a sink that stands still has lost the rest", async ({ dir }) => {
  const { sent, lines } = acknowledged(9);
  await ledgerOf(join(dir, "ledger"), lines);
  const path = join(dir, "out.log");
  await writeFile(path, documentsOf(sent.slice(0, 3)));
  const verification = await verify({ dir: join(dir, "ledger"), targets: [targetOf(`ndjson:${path}`)], waitMs: 300 });
  expect(verification).toMatchObject({ kept: false, sinks: [{ acknowledged: 9, found: 3, lost: 6 }] });
});

test("a sink that cannot be read is a broken promise with a reason; the others are looked at all the same", async ({
  dir,
}) => {
  const { sent, lines } = acknowledged(2);
  await ledgerOf(join(dir, "ledger"), lines);
  const path = join(dir, "out.log");
  await writeFile(path, documentsOf(sent));
  const targets = [`sqlite:${join(dir, "none.db")}`, `ndjson:${path}`, `rejects:${join(dir, "none.db")}`].map(targetOf);
  const verification = await verify({ dir: join(dir, "ledger"), targets, waitMs: 0 });
  expect(verification).toMatchObject({
    kept: false,
    sinks: [
      { error: "there is no such file", found: 0, lost: 2 },
      { found: 2, lost: 0 },
    ],
    rejections: [{ error: "there is no such file" }],
  });
  expect(verification.sinks[1]).not.toHaveProperty("error");
});

test("a ledger that is damaged proves nothing", async ({ dir }) => {
  const { sent, lines } = acknowledged(2);
  await ledgerOf(join(dir, "ledger"), [...lines, "damage"]);
  const path = join(dir, "out.log");
  await writeFile(path, documentsOf(sent));
  const verification = await verify({ dir: join(dir, "ledger"), targets: [targetOf(`ndjson:${path}`)], waitMs: 0 });
  expect(verification).toMatchObject({ kept: false, damagedLines: 1, sinks: [{ found: 2, lost: 0 }] });
});

test("people read a table, and in words what is wrong", async ({ dir }) => {
  const { sent, lines } = acknowledged(3);
  const at = Date.parse("2026-11-24T12:00:00.000Z");
  const lost = [sentLine(0, 3, message(4, at)), ["ack", 0, 3, at]] as const;
  await ledgerOf(join(dir, "ledger"), [...lines, ...lost], { args: ["--protocol", "5"] });
  const path = join(dir, "out.log");
  await writeFile(path, documentsOf([...sent, ...sent.slice(0, 1)]) + documentsOf(sent.slice(1, 2), 1));
  const verification = await verify({ dir: join(dir, "ledger"), targets: [targetOf(`ndjson:${path}`)], waitMs: 0 });
  const text = toVerificationText(verification)
    .replaceAll(path, "out.log")
    .replaceAll(/sent at 2026-(?!11-24).*?Z/g, "sent at X");
  expect(text.replaceAll(/ +/g, " ")).toBe(`sink acknowledged found lost duplicated reordered corrupted spoilt stored
ndjson:out.log 4 3 1 1 0 0 0
rejections by spoilt rejected wrong reason not rejected good rejected
MQTT 5 reason codes 0 0 0 0 0

ndjson:out.log:
 1 came again, as "at least once" allows
 sim-1: message 1, sent at X, is there once more at offset 3
 sim-1: message 4, sent at 2026-11-24T12:00:00.000Z, is lost
A PROMISE WAS BROKEN.
`);
});

test.each([
  ["sqlite:data/t.db", { kind: "sqlite", name: "sqlite:data/t.db", path: "data/t.db" }],
  ["rejects:/d/rejects.db", { kind: "rejects", name: "rejects:/d/rejects.db", path: "/d/rejects.db" }],
  ["postgres://u:secret@h:1/d", { kind: "postgres", name: "postgres://u@h:1/d", url: "postgres://u:secret@h:1/d" }],
  ["postgres:postgres://u@h/d", { kind: "postgres", name: "postgres://u@h/d", url: "postgres://u@h/d" }],
  ["nats://u:secret@h:4222?stream=T", { kind: "nats", name: "nats://u@h:4222?stream=T", stream: "T" }],
])("%s is where to look", (text, target) => {
  expect(parseTarget(text)).toMatchObject(target);
});

test.each(["", "sqlite:", "mysql://h/d", "nats://h:4222", "telemetry.db", "postgres:"])("'%s' is none", (text) => {
  expect(parseTarget(text)).toBeUndefined();
});
