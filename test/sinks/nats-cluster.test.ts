// A cluster of three NATS servers that loses one of them, and then another.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nats } from "../../src/sinks/nats.ts";
import { SinkError } from "../../src/sinks/sink.ts";
import type { Sink } from "../../src/sinks/sink.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { startNats } from "../servers/nats.ts";
import { findPort, isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";
import { readOffsets } from "./nats-streams.ts";

const never = new AbortController().signal;
let servers: readonly Server[] = [];

async function startCluster(): Promise<readonly Server[]> {
  const ports = [await findPort(), await findPort(), await findPort()];
  const routes = ports.map((port) => `nats://127.0.0.1:${port}`).join(", ");
  return await Promise.all(
    ports.map((port, index) =>
      startNats({
        lines: [
          `server_name: node-${index}`,
          `cluster { name: three, listen: 127.0.0.1:${port}, routes: [${routes}] }`,
        ],
      }),
    ),
  );
}

async function openSink(): Promise<Sink> {
  const { sink, given } = nats({
    servers: servers.map(({ port }) => `nats://127.0.0.1:${port}`),
    stream: "TELEMETRY",
    create: { replicas: 3 },
  });
  return await sink.open(sink.settings.parse(given), await openContext());
}

const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);

/** As the gateway does: opened anew for each attempt. */
async function write(from: number, to: number): Promise<unknown> {
  try {
    await using sink = await openSink();
    return await sink.write(makeBatch(range(from, to)), never);
  } catch (cause) {
    if (cause instanceof SinkError && cause.kind === "misconfigured") return `misconfigured: ${cause.message}`;
    return "waits";
  }
}

const expectWritten = async (from: number, to: number): Promise<void> => {
  const answers: unknown[] = [];
  const attempt = async (): Promise<unknown> => {
    const answer = await write(from, to);
    answers.push(answer);
    return answer;
  };
  await expect.poll(attempt, { timeout: 120_000, interval: 200 }).toEqual({ kind: "all" });
  expect(answers.filter((answer) => answer !== "waits")).toEqual([{ kind: "all" }]);
};

describe.skipIf(!isInstalled("nats-server"))("the nats sink with a cluster", () => {
  beforeAll(async () => {
    servers = await startCluster();
  });
  afterAll(async () => {
    for (const server of servers) await server[Symbol.asyncDispose]();
  });

  test("goes on with another server, and waits while there is no majority or no leader", async () => {
    const [first, second, third] = servers as readonly [Server, Server, Server];
    await expectWritten(0, 100);
    await first.stop("SIGKILL");
    await expectWritten(100, 200);
    await second.stop("SIGKILL");
    expect([await write(200, 300), await write(200, 300)]).toEqual(["waits", "waits"]);
    await first.start();
    await expectWritten(200, 300);
    // A cluster that has just got its majority back may elect once more, and makes no consumer meanwhile.
    const read = async (): Promise<readonly number[]> =>
      (await readOffsets(third, "TELEMETRY")).toSorted((a, b) => a - b);
    await expect.poll(read, { timeout: 60_000 }).toEqual(range(0, 300));
  });
});
