import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { openFaultProxy, type FaultProxy } from "./fault-proxy.ts";

/** What the server was given. */
let received = "";
let proxy: FaultProxy;

/** Answers every byte with itself in upper case. */
async function startEcho(): Promise<AddressInfo> {
  received = "";
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (bytes: Buffer) => {
      received += bytes.toString();
      socket.write(bytes.toString().toUpperCase());
    });
  });
  server.listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  return server.address() as AddressInfo;
}

async function open(): Promise<Socket> {
  const socket = connect(proxy.port, proxy.host);
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  return socket;
}

/** The answers until there are so many bytes. */
async function read(socket: Socket, bytes: number): Promise<string> {
  let text = "";
  while (text.length < bytes) text += String((await once(socket, "data"))[0]);
  return text;
}

const failure = async (socket: Socket): Promise<unknown> => (await once(socket, "error"))[0];
const reset = expect.objectContaining({ code: "ECONNRESET" }) as unknown;

describe("the fault proxy", () => {
  beforeEach(async () => {
    const { port } = await startEcho();
    proxy = await openFaultProxy({ host: "127.0.0.1", port });
  });
  afterEach(() => proxy[Symbol.asyncDispose]());

  test("passes bytes and the end of a connection on, in both directions", async () => {
    const socket = await open();
    socket.write("abc");
    expect(await read(socket, 3)).toBe("ABC");
    expect([proxy.connections, proxy.accepted]).toEqual([1, 1]);
    socket.end();
    await Promise.all([once(socket, "close"), proxy.idle()]);
    expect([proxy.connections, proxy.accepted]).toEqual([0, 1]);
  });

  test("takes bytes and keeps them while it hangs, and resets what it took from afterwards", async () => {
    const [old, quiet] = [await open(), await open()];
    await proxy.set({ kind: "hang" });
    const late = await open();
    for (const socket of [old, late]) {
      const arrived = proxy.nextRequest();
      socket.write("lost");
      await arrived;
    }
    const failures = Promise.all([failure(old), failure(late)]);
    await proxy.set({ kind: "none" });
    expect(await failures).toEqual([reset, reset]);
    quiet.write("abc");
    expect(await read(quiet, 3)).toBe("ABC");
    expect(received).toBe("abc");
  });

  test("resets connections, old and new ones", async () => {
    const old = await open();
    const failed = failure(old);
    await proxy.set({ kind: "reset" });
    expect(await failed).toEqual(reset);
    const late = connect(proxy.port, proxy.host);
    expect(await failure(late)).toEqual(reset);
    expect(received).toBe("");
  });

  test("gives the server everything, and cuts its answer short", async () => {
    const socket = await open();
    socket.write("abc");
    await read(socket, 3);
    await proxy.set({ kind: "cut", answerBytes: 2 });
    const failed = failure(socket);
    const answer = read(socket, 2);
    socket.write("def");
    expect([await answer, await failed]).toEqual(["DE", reset]);
    expect(received).toBe("abcdef");
  });

  test("gives the server a part of a request", async () => {
    const socket = await open();
    await proxy.set({ kind: "cut", requestBytes: 2 });
    const failed = failure(socket);
    socket.write("abc");
    expect(await failed).toEqual(reset);
    await vi.waitFor(() => expect(received).toBe("ab"));
  });

  test("lets so many bytes a second pass", async () => {
    const socket = await open();
    await proxy.set({ kind: "slow", bytesPerSecond: 1_000 });
    socket.write("x".repeat(100));
    await once(socket, "data");
    expect(received.length).toBeLessThan(100);
    await proxy.set({ kind: "slow", bytesPerSecond: 100_000 });
    await read(socket, 80);
    expect(received.length).toBe(100);
  });

  test("is not there, and is there again on the same port", async () => {
    const old = await open();
    const failed = failure(old);
    await proxy.set({ kind: "refused" });
    expect(await failed).toEqual(reset);
    expect(await failure(connect(proxy.port, proxy.host))).toMatchObject({ code: "ECONNREFUSED" });
    await proxy.set({ kind: "none" });
    const late = await open();
    late.write("abc");
    expect(await read(late, 3)).toBe("ABC");
  });
});
