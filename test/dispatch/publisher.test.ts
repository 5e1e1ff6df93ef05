import { expect, test } from "vitest";
import { createPublisher } from "../../src/dispatch/publisher.ts";
import type { HandlerMessage } from "../../src/dispatch/protocol.ts";

const { signal } = new AbortController();
const withdraw = (): void => {};

test("a publish resolves or rejects with the answer to it, in any order", async () => {
  const posted: number[] = [];
  const publisher = createPublisher({ post: (id) => posted.push(id), withdraw });
  const [first, second] = [publisher.publish(signal, "a", "1"), publisher.publish(signal, "b", "2")];
  publisher.settle(posted[1] ?? 0, "no");
  publisher.settle(posted[0] ?? 0, undefined);
  await expect(first).resolves.toBeUndefined();
  await expect(second).rejects.toThrow("no");
});

test("bytes are posted as a copy of their own, not as a part of a pool", () => {
  const posted: HandlerMessage[] = [];
  const { publish } = createPublisher({ post: (_id, message) => posted.push(message), withdraw });
  void publish(signal, "a", Buffer.from("abc"));
  const payload = posted[0]?.payload as Uint8Array;
  expect([...payload]).toEqual([97, 98, 99]);
  expect(payload.buffer.byteLength).toBe(3);
});

test("a handler that never awaits is refused before memory fills", async () => {
  const publisher = createPublisher({ post: () => {}, withdraw });
  for (let n = 0; n < 1_000; n += 1) void publisher.publish(signal, "a", "");
  await expect(publisher.publish(signal, "a", "")).rejects.toThrow("await publish()");
  publisher.settle(1, undefined);
  await Promise.race([publisher.publish(signal, "a", ""), Promise.resolve()]);
});

test("when its call is over a publish ends, and its message is withdrawn", async () => {
  const over = new AbortController();
  const withdrawn: number[] = [];
  const publisher = createPublisher({ post: () => {}, withdraw: (id) => withdrawn.push(id) });
  const publishing = publisher.publish(over.signal, "a", "");
  over.abort(new Error("the call took longer"));
  await expect(publishing).rejects.toThrow("the call took longer");
  expect(withdrawn).toEqual([1]);
  publisher.settle(1, "too late");
  await expect(publisher.publish(over.signal, "a", "")).rejects.toThrow("the call took longer");
  expect(withdrawn).toEqual([1]);
});
