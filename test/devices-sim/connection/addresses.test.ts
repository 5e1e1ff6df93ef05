import { expect, test } from "vitest";
import { addresses, addressOf } from "../../../devices-sim/connection/addresses.ts";

const firstOf = (text: string, count: number): readonly (string | undefined)[] =>
  Array.from({ length: count }, (_, index) => addressOf(addresses(text), index));

test("devices take the addresses of a list, a range and a network in turn", () => {
  expect(firstOf("127.0.0.2", 2)).toEqual(["127.0.0.2", "127.0.0.2"]);
  expect(firstOf("127.0.0.254-127.0.1.1", 5)).toEqual([
    "127.0.0.254",
    "127.0.0.255",
    "127.0.1.0",
    "127.0.1.1",
    "127.0.0.254",
  ]);
  expect(firstOf("10.0.0.9, 127.0.0.4/30,::1", 5)).toEqual(["10.0.0.9", "127.0.0.5", "127.0.0.6", "::1", "10.0.0.9"]);
});

test("a network has neither its own nor its broadcast address, but with two addresses or one it has all", () => {
  expect(addresses("192.0.2.77/24")).toEqual([{ first: "192.0.2.1", count: 254 }]);
  expect(addresses("127.0.0.0/8")).toEqual([{ first: "127.0.0.1", count: 2 ** 24 - 2 }]);
  expect(addresses("192.0.2.6/31")).toEqual([{ first: "192.0.2.6", count: 2 }]);
  expect(addresses("192.0.2.6/32")).toEqual([{ first: "192.0.2.6", count: 1 }]);
});

test("without addresses the system chooses", () => {
  expect(addressOf([], 7)).toBeUndefined();
});

test.each(["", "eth0", "127.0.0.1/33", "127.0.0.1/", "127.0.0.9-127.0.0.2", "127.0.0.1-", "::1/64", "127.0.0.1,"])(
  "'%s' is refused",
  (text) => {
    expect(() => addresses(text)).toThrow("expected addresses like");
  },
);
