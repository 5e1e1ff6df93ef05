import { expect, test } from "vitest";
import { createPublisher } from "../../src/dispatch/publisher.ts";
import type { HandlerMessage } from "../../src/dispatch/protocol.ts";

test("a publish resolves or rejects with the answer to it, in any order", async () => {
  const posted: number[] = [];
  const publisher = createPublisher((id) => posted.push(id));
  const [first, second] = [publisher.publish("a", "1"), publisher.publish("b", "2")];
  publisher.settle(posted[1] ?? 0, "no");
  publisher.settle(posted[0] ?? 0, undefined);
  await expect(first).resolves.toBeUndefined();
  await expect(second).rejects.toThrow("no");
});

test("bytes are posted as a copy of their own, not as a part of a pool", () => {
  const posted: HandlerMessage[] = [];
  const { publish } = createPublisher((_id, message) => posted.push(message));
  void publish("a", Buffer.from("abc"));
  const payload = posted[0]?.payload as Uint8Array;
  expect([...payload]).toEqual([97, 98, 99]);
  expect(payload.buffer.byteLength).toBe(3);
});

test("a handler that never awaits is refused before memory fills", async () => {
  const publisher = createPublisher(() => {});
  for (let n = 0; n < 1_000; n += 1) void publisher.publish("a", "");
  await expect(publisher.publish("a", "")).rejects.toThrow("await publish()");
  publisher.settle(1, undefined);
  await Promise.race([publisher.publish("a", ""), Promise.resolve()]);
});
