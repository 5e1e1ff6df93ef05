// What every sink with a server must do when the way to it or the server itself fails.

import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { openFaultProxy, type Fault } from "../servers/fault-proxy.ts";
import type { Server } from "../servers/server.ts";
import { deliverAll, deliverFrom, makeBatch, makeEntry, never, openContext, range } from "./entries.ts";
import { readOnce, toRow, within, type SinkUnderTest, type WrittenRow } from "./sink-under-test.ts";

/** The dispatcher gives up the thread of a sink that does not settle within this. */
const GIVES_UP_MS = 5_000;
/** A sink bounds its opening itself. */
const OPENS_MS = 25_000;

/** silent: the sink learns nothing of it, and is told by its signal. */
const faults: readonly { readonly name: string; readonly fault: Fault; readonly silent?: true }[] = [
  { name: "hangs", fault: { kind: "hang" }, silent: true },
  { name: "is far too slow", fault: { kind: "slow", bytesPerSecond: 50 }, silent: true },
  { name: "resets connections", fault: { kind: "reset" } },
  { name: "is not there", fault: { kind: "refused" } },
  { name: "is cut off before it answers", fault: { kind: "cut", answerBytes: 0 } },
  { name: "is cut off in mid-answer", fault: { kind: "cut", answerBytes: 1 } },
];

const toRows = (to: number): readonly WrittenRow[] => range(0, to).map((offset) => toRow(makeEntry(offset)));
const close = (sink: Sink): Promise<void> =>
  within(GIVES_UP_MS, "closing", Promise.resolve(sink[Symbol.asyncDispose]()));

/** On the way to `server`. */
export function describeWay(tested: SinkUnderTest & Required<Pick<SinkUnderTest, "server" | "openAt">>): void {
  const { server, openAt } = tested;

  test.for(faults)("that throws when its server $name, and has everything once it is opened again", async (one) => {
    const context = await openContext();
    await using proxy = await openFaultProxy(await server(context));
    const sink = await openAt(context, proxy);
    await deliverAll(sink, makeBatch(range(0, 10)));
    await proxy.set(one.fault);
    const abort = new AbortController();
    const requested = proxy.nextRequest();
    const written = sink.write(makeBatch(range(10, 60)), abort.signal);
    written.catch(() => {});
    if (one.silent) {
      await requested;
      abort.abort(new Error("enough"));
    }
    const said = one.silent ? "enough" : String(proxy.port);
    await expect(within(GIVES_UP_MS, "the write", written)).rejects.toThrow(said);
    await close(sink);
    // What is far too slow is told of the end behind everything else.
    if (one.fault.kind === "slow") await proxy.set({ kind: "none" });
    await within(GIVES_UP_MS, "closing the connections", proxy.idle());
    expect(one.silent ? `${proxy.port}` : await failureOf(openAndWrite(openAt, context, proxy))).toContain(
      `${proxy.port}`,
    );
    await proxy.set({ kind: "none" });
    await deliverAnew(() => openAt(context, proxy), 10, 80);
    expect(await readOnce(tested, context)).toEqual(toRows(80));
  });

  test("that gets through a slow network", async () => {
    const context = await openContext();
    await using proxy = await openFaultProxy(await server(context));
    await using sink = await openAt(context, proxy);
    await proxy.set({ kind: "slow", bytesPerSecond: 50_000 });
    await deliverAll(sink, makeBatch(range(0, 50)));
    expect(await readOnce(tested, context)).toEqual(toRows(50));
  });

  test("whose opening or first write ends in time when its server hangs", async () => {
    const context = await openContext();
    await using proxy = await openFaultProxy(await server(context));
    await proxy.set({ kind: "hang" });
    const opening = openAndWrite(openAt, context, proxy, AbortSignal.timeout(1_000));
    expect(await failureOf(within(OPENS_MS, "opening", opening))).not.toContain("opening takes longer");
    await within(GIVES_UP_MS, "closing the connections", proxy.idle());
  });
}

/** What was given up may still be under way in the server: until that has ended, a sink may throw again. */
async function deliverAnew(open: () => Promise<Sink>, cursor: number, to: number, attempts = 10): Promise<void> {
  try {
    await using sink = await open();
    await deliverFrom(sink, cursor, to);
  } catch (cause) {
    if (attempts === 1) throw cause;
    await deliverAnew(open, cursor, to, attempts - 1);
  }
}

/** The message that it rejects with. */
const failureOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "it did not fail",
    (error: unknown) => String(error),
  );

async function openAndWrite(
  openAt: Required<SinkUnderTest>["openAt"],
  context: SinkContext,
  place: Pick<Server, "host" | "port">,
  signal = never,
): Promise<void> {
  await using sink = await openAt(context, place);
  await sink.write(makeBatch(range(10, 15)), signal);
}

/** `server` itself. */
export function describeServer(tested: SinkUnderTest & Required<Pick<SinkUnderTest, "server" | "survives">>): void {
  const { open, survives } = tested;
  const serverOf = async (context: SinkContext): Promise<Server> => (await tested.server(context)) as Server;

  test("that obeys its signal and can be closed while its server is frozen, and writes nothing twice", async () => {
    const context = await openContext();
    const sink = await open(context);
    await deliverAll(sink, makeBatch(range(0, 10)));
    const abort = new AbortController();
    const server = await serverOf(context);
    server.freeze();
    try {
      const written = sink.write(makeBatch(range(10, 20)), abort.signal);
      await setImmediate();
      abort.abort(new Error("enough"));
      await expect(within(GIVES_UP_MS, "the write", written)).rejects.toThrow("enough");
      await close(sink);
    } finally {
      server.thaw();
    }
    await deliverAnew(() => open(context), 10, 30);
    expect(await readOnce(tested, context)).toEqual(toRows(30));
  });

  test("that can be closed while its server is frozen and nothing is written", async () => {
    const context = await openContext();
    const sink = await open(context);
    const server = await serverOf(context);
    server.freeze();
    try {
      await expect(close(sink)).resolves.toBeUndefined();
    } finally {
      server.thaw();
    }
  });

  if (survives === "SIGSTOP") return;

  test("that goes on where it was after a restart of its server", async () => {
    const context = await openContext();
    const server = await serverOf(context);
    {
      await using sink = await open(context);
      await deliverAll(sink, makeBatch(range(0, 10)));
      await server.stop(survives);
      await expect(within(GIVES_UP_MS, "the write", sink.write(makeBatch(range(10, 20)), never))).rejects.toThrow(
        String(server.port),
      );
      await server.start();
    }
    await using sink = await open(context);
    await deliverFrom(sink, 10, 30);
    expect(await readOnce(tested, context)).toEqual(toRows(30));
  });

  test(`that has everything in order, however often its server is ended in mid-write (${survives})`, async () => {
    const context = await openContext();
    const server = await serverOf(context);
    const total = 3_000;
    const progress = { cursor: 0, opened: 0 };
    const writing = writeThrough(open, context, progress, total);
    for (const share of [0.2, 0.4, 0.6, 0.8]) {
      while (progress.cursor < total * share) await setImmediate();
      await server.stop(survives);
      await server.start();
    }
    await writing;
    expect(progress.opened).toBeGreaterThan(4);
    expect((await readOnce(tested, context)).map(({ offset }) => offset)).toEqual(range(0, total));
  });
}

/** In batches of 50, opening the sink anew whenever it throws. */
async function writeThrough(
  open: SinkUnderTest["open"],
  context: SinkContext,
  progress: { cursor: number; opened: number },
  total: number,
): Promise<void> {
  while (progress.cursor < total) {
    try {
      await using sink = await open(context);
      progress.opened += 1;
      progress.cursor = (await sink.position?.()) ?? progress.cursor;
      for (; progress.cursor < total; progress.cursor += 50) {
        await deliverAll(sink, makeBatch(range(progress.cursor, progress.cursor + 50)));
      }
    } catch {
      await setImmediate();
    }
  }
}
