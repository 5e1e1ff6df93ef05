import { expect, test } from "vitest";
import { createAccounts, type SinkFigures } from "./accounts.ts";

const figures: SinkFigures = {
  name: "mqtt",
  kind: "sink",
  state: "running",
  position: 100,
  lagRecords: 0,
  delivered: 0,
  parked: 0,
  passed: 0,
  expired: 0,
};

test("what was parked and expired is added up over the lives of a gateway", () => {
  const accounts = createAccounts();
  accounts.take([figures]);
  accounts.take([{ ...figures, position: 110, delivered: 7, parked: 2, expired: 1 }]);
  accounts.beginLife();
  accounts.take([{ ...figures, position: 105 }]);
  accounts.take([{ ...figures, position: 112, delivered: 6, parked: 1 }]);
  expect(accounts.of("mqtt")).toEqual({ parked: 3, expired: 1, unexplained: 0 });
  expect(accounts.of("another")).toEqual({ parked: 0, expired: 0, unexplained: 0 });
});

test("a cursor that passes more than is counted is found out", () => {
  const accounts = createAccounts();
  accounts.take([figures]);
  accounts.take([{ ...figures, position: 110, delivered: 7, passed: 2 }]);
  expect(accounts.of("mqtt")).toEqual({ parked: 0, expired: 0, unexplained: 1 });
});
